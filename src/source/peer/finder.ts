import type { Clock } from '../../clock.ts';
import type { Digest } from '../../core/digest.ts';
import { orAborted } from '../../core/or-aborted.ts';
import type { Bans } from './bans.ts';
import { chunkKey, placeOfKey } from './chunk-key.ts';
import type { Neighbour } from './directory.ts';
import { hearAll } from './known-addresses.ts';
import { SWARM_LIMITS } from './limits.ts';
import type { PeerLinks } from './links.ts';
import { decodePeers, MESSAGE } from './messages.ts';
import type { NegativeCache } from './negative-cache.ts';
import type { SwarmNode } from './node.ts';
import type { PeerTable } from './peer-table.ts';
import type { ProviderIndex } from './provider-index.ts';

/** Finds who announced a chunk. */
export interface Finder {
  /** Yields neighbours as answers arrive. Throws the signal's reason, nothing else. */
  find(digest: Digest, options: { signal: AbortSignal }): AsyncGenerator<Neighbour>;
}

export interface FinderComponents {
  readonly node: SwarmNode;
  readonly table: PeerTable;
  readonly links: PeerLinks;
  readonly index: ProviderIndex;
  readonly bans: Bans;
  readonly clock: Clock;
  readonly unknown: NegativeCache;
  /** True while the table is a guess. */
  readonly isYoung: () => boolean;
}

/** Peers asked beyond those that should have the record: tables differ for a moment when somebody joins or leaves. */
const ASKED_BEYOND = 2;
/** Ms that answers may come after enough of the others said no: several round trips within a cluster. */
const LATE_MS = 20;
/** Most peers asked at once. */
const ASKED_MAX = 5;

/** A finder; `replication` is how many peers get each record. */
export function createFinder(components: FinderComponents, init: { replication: number }): Finder {
  const { table, unknown } = components;
  const asked = Math.min(ASKED_MAX, init.replication + ASKED_BEYOND);
  return {
    async *find(digest, { signal }) {
      signal.throwIfAborted();
      const key = chunkKey(digest);
      const members = table.closest(placeOfKey(key), asked);
      if (members.length <= 1 && table.members.length <= 1) return;
      if (unknown.has(key)) return;
      const found = { any: false, answered: 0 };
      const ids = members.map(({ id }) => id);
      const enough = Math.min(init.replication, ids.length);
      yield* collect(search(components, key, { ids, enough }, found, signal), signal);
      if (found.any) return;
      // Those who must know said no: nobody has it. Else they are not those who must know.
      if (found.answered > 0 && !components.isYoung()) unknown.add(key);
      else yield* collect(walk(components, key, signal), signal);
    },
  };
}

/** A source of neighbours: calls `emit` for each, and resolves when there are no more. */
type Source = (emit: (neighbour: Neighbour) => void) => Promise<void>;

/** What a source emits, as it comes. */
async function* collect(source: Source, signal: AbortSignal): AsyncGenerator<Neighbour> {
  const waiting: Neighbour[] = [];
  const seen = new Set<string>();
  let wake = Promise.withResolvers<void>();
  let isDone = false;
  const ended = source((neighbour) => {
    if (seen.has(neighbour.id)) return;
    seen.add(neighbour.id);
    waiting.push(neighbour);
    wake.resolve();
  })
    .catch(() => undefined)
    .finally(() => {
      isDone = true;
      wake.resolve();
    });
  for (;;) {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      signal.throwIfAborted();
      yield next;
    }
    if (isDone) break;
    await orAborted(wake.promise, signal);
    wake = Promise.withResolvers<void>();
  }
  await ended;
  signal.throwIfAborted();
}

/**
 * Asks this node's own index and the peers closest to the key, all at once. When as many as keep a record said no, the
 * others have LATE_MS: one that is away must not make every search for something new wait for its timeout.
 */
function search(
  parts: FinderComponents,
  key: Uint8Array,
  asked: { ids: readonly string[]; enough: number },
  found: { any: boolean; answered: number },
  signal: AbortSignal,
): Source {
  return async (emit) => {
    const { table, index, links, clock } = parts;
    const late = Promise.withResolvers<void>();
    let timer: NodeJS.Timeout | undefined;
    let named = 0;
    const tell = async (id: string): Promise<void> => {
      named += 1;
      const neighbour = await neighbourOf(parts, id, signal);
      if (neighbour === undefined) return;
      found.any = true;
      emit(neighbour);
    };
    const ask = async (id: string): Promise<void> => {
      const { findTimeoutMs: timeoutMs } = SWARM_LIMITS;
      const body = await links.request(id, MESSAGE.find, key, { timeoutMs, signal });
      const providers = hearAll(parts, decodePeers(body, SWARM_LIMITS.providersPerKey));
      found.answered += 1;
      if (found.answered === asked.enough) timer = setTimeout(() => named === 0 && late.resolve(), LATE_MS);
      await Promise.all(providers.map((provider) => (provider === undefined ? undefined : tell(provider))));
    };
    const own = index.lookup(key, clock.nowMs()).map(tell);
    if (asked.ids.includes(table.self.id)) found.answered += 1;
    const others = asked.ids.filter((id) => id !== table.self.id).map(ask);
    await Promise.race([Promise.allSettled([...own, ...others]), late.promise]);
    clearTimeout(timer);
  };
}

/** The iterative walk of kad-dht: for when the peers that should know are not the right ones, or do not answer. */
function walk(parts: FinderComponents, key: Uint8Array, signal: AbortSignal): Source {
  return async (emit) => {
    const { node, table } = parts;
    const limit = AbortSignal.any([signal, AbortSignal.timeout(SWARM_LIMITS.walkTimeoutMs)]);
    const telling: Promise<void>[] = [];
    try {
      for await (const { id, host, port } of node.walk(key, { signal: limit })) {
        if (port !== 0) table.hear({ id, multihash: node.multihashOf(id), host, port });
        telling.push(neighbourOf(parts, id, limit).then((one) => (one === undefined ? undefined : emit(one))));
      }
    } finally {
      await Promise.allSettled(telling);
    }
  };
}

/** The neighbour of that id, connected to when need be; undefined for this node, banned ones and those out of reach. */
export async function neighbourOf(
  { table, links, bans }: Pick<FinderComponents, 'table' | 'links' | 'bans'>,
  id: string,
  signal: AbortSignal,
): Promise<Neighbour | undefined> {
  if (id === table.self.id || bans.has(id)) return undefined;
  const known = table.get(id);
  if (known?.neighbour !== undefined && known.failures === 0) return known.neighbour;
  try {
    await links.reach(id, { signal });
  } catch {
    return undefined;
  }
  return bans.has(id) ? undefined : table.get(id)?.neighbour;
}
