import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import type { Digest } from '../core/digest.ts';
import { createHedging } from '../core/policy/hedging.ts';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { createChunkClient } from '../source/peer/data/chunk-client.ts';
import { type ChunkServer, createChunkServer } from '../source/peer/data/chunk-server.ts';
import { claimed } from '../source/peer/data/claimed.ts';
import { hedged } from '../source/peer/data/hedged.ts';
import { createHeldChunks } from '../source/peer/data/held-chunks.ts';
import { loadTlsIdentity } from '../source/peer/data/identity.ts';
import { createNeighbourStore, type NeighbourStore } from '../source/peer/data/neighbour-store.ts';
import type { HeldChunks, PeerDirectory } from '../source/peer/directory.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { ChunkStore } from '../store/chunk-store.ts';
import { dedup } from '../store/dedup.ts';
import type { FetchLedger, StepOutcome } from '../store/ledger.ts';
import type { LocalStore } from '../store/local-store.ts';
import { route } from '../store/route.ts';
import { createSharingStore, type SharedChunks, type SharingStore } from '../store/shared-chunks.ts';
import { NEIGHBOUR } from './fetch-story.ts';
import { fillRows } from './fill-rows.ts';

/** A node's place in the swarm: the cascade with neighbours in it, and what serves them. */
export interface Neighbourhood<Directory extends PeerDirectory> {
  /** What devices fill from: this node, neighbours, and outside by claim. */
  readonly cascade: ChunkStore;
  readonly directory: Directory;
  readonly neighbours: NeighbourStore;
  readonly server: ChunkServer;
  stop(): Promise<void>;
}

/** What a neighbourhood is made of; `outside` and `local` are counted already. */
export interface NeighbourhoodComponents {
  readonly blobs: BlobStore;
  readonly local: LocalStore;
  /** `local` as the cascade asks it. */
  readonly localStep: ChunkStore;
  /** Mirrors and origin. */
  readonly outside: ChunkStore;
  /** Counts what neighbours give. */
  readonly counted: (inner: ChunkStore) => ChunkStore;
  readonly ledger: FetchLedger;
  /** Whether chunks of this layer may be given to others. */
  readonly shareable: (blob: Digest) => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Where the chunk server listens, and what it may give. */
export interface NeighbourhoodInit {
  readonly root: string;
  readonly host: string;
  readonly dataPort: number;
  readonly zone: string;
  /** 0: no limit. */
  readonly uploadBytesPerSecond: number;
}

/** What the swarm node has to tell others. */
export interface DataFacts {
  readonly dataPort: number;
  readonly fingerprint: string;
}

/**
 * Starts to serve neighbours, then joins the swarm by `joinSwarm`. Needs no network but the ports to listen on. Throws
 * UNAVAILABLE when they are taken, and what `joinSwarm` throws.
 */
export async function openNeighbourhood<Directory extends PeerDirectory & { stop(): Promise<void> }>(
  components: NeighbourhoodComponents,
  init: NeighbourhoodInit,
  joinSwarm: (held: HeldChunks, facts: DataFacts) => Promise<Directory>,
): Promise<Neighbourhood<Directory>> {
  const { blobs, local, shareable, clock, log } = components;
  const stack = new AsyncDisposableStack();
  try {
    const identity = await loadTlsIdentity({ keysDir: join(init.root, 'keys') });
    // The server comes first, because the swarm tells its port; until it has joined nobody is let in.
    const late: { directory?: Directory; shared?: SharedChunks } = {};
    const server = stack.use(
      createChunkServer(
        {
          directory: lateDirectory(late, { fingerprint: identity.fingerprint, zone: init.zone }),
          chunks: lateChunks(late),
          identity,
          clock,
          log,
        },
        { host: init.host, port: init.dataPort, bytesPerSecond: init.uploadBytesPerSecond },
      ),
    );
    const dataPort = await server.start();
    const held = createHeldChunks({ blobs, shareable });
    const directory = await joinSwarm(held, { dataPort, fingerprint: identity.fingerprint });
    stack.defer(() => directory.stop());
    const client = createChunkClient({ identity });
    stack.defer(() => client.close());
    const { inner, neighbours, close } = cascadeOf(components, { directory, client });
    stack.defer(close);
    const sharing: SharingStore = createSharingStore({ inner, local, blobs, shareable });
    Object.assign(late, { directory, shared: sharing.shared });
    blobs.onChunks({
      held: (digests) => directory.announce(digests),
      gone: (digests) => directory.withdraw(digests),
    });
    return { cascade: sharing, directory, neighbours, server, stop: () => stack.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

function cascadeOf(
  components: NeighbourhoodComponents,
  { directory, client }: { directory: PeerDirectory; client: ReturnType<typeof createChunkClient> },
): { inner: ChunkStore; neighbours: NeighbourStore; close: () => Promise<void> } {
  const { blobs, localStep, outside, counted, ledger, clock, log } = components;
  const hedging = createHedging({ sharers: () => directory.peers().length + 1 });
  const table = (blob: Digest) => blobs.opened(blob)?.table;
  const neighbours = createNeighbourStore({
    directory,
    client,
    table,
    hedging,
    clock,
    log,
    answered: (neighbour, digest, { ms, error }) =>
      ledger.peer(digest, { source: NEIGHBOUR, peer: neighbour.id, ms, ...outcomeOf(error) }),
  });
  const claims = claimed({
    outside,
    directory,
    table,
    hedging,
    clock,
    ask: (holders, options) => counted(neighbours.asking(holders, options)),
    complete: (blob, first, end) => fillRows(blobs.opened(blob), { first, end }, log),
  });
  const swarm = hedged({ neighbours: counted(neighbours), outside, hedging, clock });
  return {
    inner: dedup(ledger.watch(route(localStep, swarm, claims))),
    neighbours,
    async close() {
      await claims.close();
      await neighbours.close();
    },
  };
}

function outcomeOf(error: unknown): { outcome: StepOutcome; why?: string } {
  if (error === undefined) return { outcome: 'served' };
  if (!(error instanceof ShoalError)) return { outcome: 'OTHER', why: String(error) };
  return { outcome: error.code === 'CHUNK_MISSING' ? 'missing' : error.code, why: error.message };
}

/** Until the node has joined, nobody is known and only its zone is. */
function lateDirectory(
  late: { directory?: PeerDirectory },
  known: { fingerprint: string; zone: string },
): Pick<PeerDirectory, 'byFingerprint' | 'self'> {
  return {
    get self() {
      return late.directory?.self ?? { id: '', address: '', dataPort: 0, ...known };
    },
    byFingerprint: (fingerprint) => late.directory?.byFingerprint(fingerprint),
  };
}

function lateChunks(late: { shared?: SharedChunks }): SharedChunks {
  return {
    locate: async (digest) => await late.shared?.locate(digest),
    read: async (ref, options) => await late.shared?.read(ref, options),
    underWay: (digest, urgency) => late.shared?.underWay(digest, urgency),
  };
}
