import { mkdirSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { oneAtATime } from '../../core/turns.ts';
import type { AnnounceMarker } from './announcer.ts';
import { placeOfPeer } from './chunk-key.ts';
import { prefixOf } from './closest.ts';
import { SWARM_LIMITS } from './limits.ts';
import { placementOf } from './placement.ts';
import { readJson, writeAtomically } from './state-file.ts';

/** A peer as it is kept between starts. */
export interface SavedPeer {
  readonly id: string;
  readonly host: string;
  readonly port: number;
}

/** What the swarm keeps below `<root>/swarm`: all of it can be lost, and costs time only. */
export interface SwarmState {
  readonly marker: AnnounceMarker;
  peers(): SavedPeer[];
  savePeers(peers: readonly SavedPeer[]): Promise<void>;
}

/** A record has at least this left when its node ends in order: it was announced within `reannounceMs`. */
const FRESH_MS = SWARM_LIMITS.recordLifeMs - SWARM_LIMITS.reannounceMs - 3_600_000;
/** Largest file: 2,000 peers of some 100 bytes, with room. */
const FILE_BYTES_MAX = 1024 * 1024;

/** Opens the folder, made when missing. `multihashOf` throws for what is no peer id. */
export function openSwarmState(init: {
  folder: string;
  multihashOf: (id: string) => Uint8Array;
  wallTimeMs: () => number;
}): SwarmState {
  mkdirSync(init.folder, { recursive: true, mode: 0o700 });
  const peersFile = join(init.folder, 'peers.json');
  const markerFile = join(init.folder, 'announced.json');
  const inOrder = oneAtATime();
  const isId = (id: unknown): id is string => {
    try {
      return typeof id === 'string' && init.multihashOf(id).byteLength > 0;
    } catch {
      return false;
    }
  };
  return {
    peers() {
      const value = readJson(peersFile, FILE_BYTES_MAX);
      if (!Array.isArray(value)) return [];
      return value
        .slice(0, SWARM_LIMITS.peers)
        .filter(
          (peer): peer is SavedPeer =>
            isId(peer?.id) &&
            isIP(String(peer?.host)) !== 0 &&
            Number.isInteger(peer?.port) &&
            peer.port > 0 &&
            peer.port < 65_536,
        );
    },
    savePeers: (peers) => inOrder(() => writeAtomically(peersFile, `${JSON.stringify(peers)}\n`)),
    marker: {
      read() {
        const value = readJson(markerFile, FILE_BYTES_MAX) as Record<string, unknown> | undefined;
        if (value?.isComplete !== true || typeof value.roundMs !== 'number' || !Array.isArray(value.members)) {
          return undefined;
        }
        // After longer than that, others may have let some of our records go.
        const ageMs = init.wallTimeMs() - Number(value.savedMs);
        if (!(ageMs >= 0 && ageMs < FRESH_MS)) return undefined;
        const members = value.members.filter((one) => isId(one?.[0]) && typeof one?.[1] === 'string');
        const placed = members.map(([id, instance]: [string, string]) => {
          const place = placeOfPeer(init.multihashOf(id));
          return { id, instance, place, prefix: prefixOf(place) };
        });
        return { placement: placementOf(placed), roundMs: value.roundMs };
      },
      write({ placement, roundMs, isComplete }) {
        const members = placement?.members.map(({ id, instance }) => [id, instance]) ?? [];
        const savedMs = init.wallTimeMs();
        return inOrder(() =>
          writeAtomically(markerFile, `${JSON.stringify({ isComplete, savedMs, roundMs, members })}\n`),
        );
      },
    },
  };
}
