import type { Clock } from '../../../clock.ts';
import type { Chunk, ChunkRef } from '../../../core/chunk.ts';
import type { ChunkTable } from '../../../core/chunk-table.ts';
import type { Digest } from '../../../core/digest.ts';
import { createExpiringSet, type ExpiringSet } from '../../../core/policy/expiring-set.ts';
import type { Hedging } from '../../../core/policy/hedging.ts';
import { NEIGHBOUR_LIMITS, SESSION_LIMITS } from '../../../core/policy/neighbour-limits.ts';
import {
  createNeighbourScores,
  type NeighbourScores,
  type NeighbourStats,
  type Outcome,
} from '../../../core/policy/neighbour-score.ts';
import { hasCode, ShoalError } from '../../../errors.ts';
import type { Logger } from '../../../log.ts';
import type { ChunkStore, GetOptions } from '../../../store/chunk-store.ts';
import { chunkMissing } from '../../../store/route.ts';
import type { Neighbour, PeerDirectory } from '../directory.ts';
import { type BlobSession, createBlobSession } from './blob-session.ts';
import type { ChunkClient } from './chunk-client.ts';
import { type Attempt, firstAnswer } from './first-answer.ts';
import { createHolderSearch } from './holder-search.ts';

/** Chunks that neighbours hold. */
export interface NeighbourStore extends ChunkStore {
  /**
   * A store that asks these neighbours, in this order, and nobody else; they may keep a request for up to `waitMs` while
   * they get the chunk themselves. Throws CHUNK_MISSING when none of them yields it.
   */
  asking(holders: readonly Neighbour[], init: { waitMs: number }): ChunkStore;
  /** Neighbours whose bitmaps, as far as they came, have the chunk; in any order, at most a few. No network. */
  known(ref: ChunkRef): readonly Neighbour[];
  stats(): SwarmDownloadStats;
}

/** What came from neighbours, and from which. */
export interface SwarmDownloadStats {
  /** Answers that were not what their digest says; each banned its sender. */
  readonly corrupt: number;
  /** Bytes that came from another zone. */
  readonly crossZoneBytes: number;
  /** Reads that asked a second neighbour because the first was slow. */
  readonly hedges: number;
  readonly neighbours: readonly { readonly neighbour: Neighbour; readonly stats: NeighbourStats }[];
}

/** What the store works with; `random` gives [0, 1). */
export interface NeighbourStoreComponents {
  readonly directory: PeerDirectory;
  readonly client: ChunkClient;
  readonly table: (blob: Digest) => ChunkTable | undefined;
  readonly hedging: Hedging;
  readonly clock: Clock;
  readonly log: Logger;
  readonly random?: () => number;
  /** Told what each neighbour answered and how long that took; without `error` it gave the chunk. */
  readonly answered?: (neighbour: Neighbour, digest: Digest, answer: { ms: number; error?: unknown }) => void;
}

/**
 * The first step outside this node: neighbours that hold the chunk, by the bitmaps of a session per blob, then by the
 * directory. CHUNK_MISSING when nobody has it, and also when all who should have it failed: whatever the swarm does, the
 * next source is asked.
 */
export function createNeighbourStore(components: NeighbourStoreComponents): NeighbourStore {
  return new Neighbours(components);
}

class Neighbours implements NeighbourStore {
  readonly #components: NeighbourStoreComponents;
  readonly #scores: NeighbourScores;
  readonly #random: () => number;
  readonly #nobody: ExpiringSet;
  /** Least recently used first. */
  readonly #sessions = new Map<Digest, BlobSession>();
  #corrupt = 0;
  #crossZoneBytes = 0;
  #hedges = 0;
  #closed = false;

  constructor(components: NeighbourStoreComponents) {
    this.#components = components;
    this.#random = components.random ?? Math.random;
    this.#scores = createNeighbourScores({ ownZone: components.directory.self.zone, random: this.#random });
    this.#nobody = createExpiringSet({ forMs: NEIGHBOUR_LIMITS.negativeMs, most: NEIGHBOUR_LIMITS.maxNegative });
  }

  async has(ref: ChunkRef): Promise<boolean> {
    if (this.#closed || this.#components.directory.peers().length === 0) return false;
    const { search, stop } = this.#search(ref, { signal: new AbortController().signal });
    try {
      return (await search()) !== undefined;
    } finally {
      stop();
    }
  }

  async get(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    options.signal.throwIfAborted();
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the swarm is closed');
    if (this.#components.directory.peers().length === 0) throw chunkMissing(ref, 'there are no neighbours');
    const { search, stop, session } = this.#search(ref, options);
    const nobodyWaits = (): boolean => options.urgency === 'prefetch';
    if (nobodyWaits() && !session.worthAsking()) {
      throw chunkMissing(ref, 'neighbours were too busy of late: a claim says whom to ask');
    }
    let asked = 0;
    let refusals = 0;
    const next = async (hedge: boolean): Promise<Attempt<Chunk> | undefined> => {
      const isRefused = nobodyWaits() && refusals >= NEIGHBOUR_LIMITS.maxRefusals;
      if (isRefused || asked >= NEIGHBOUR_LIMITS.maxAsked) return undefined;
      const holder = await search();
      if (holder === undefined) return undefined;
      asked += 1;
      if (hedge) this.#hedges += 1;
      return async (signal) => {
        try {
          const chunk = await this.#ask(holder, ref, { options, signal, waitMs: 0, session });
          session.answered(true);
          return chunk;
        } catch (error) {
          if (hasCode(error, 'UNAVAILABLE')) {
            refusals += 1;
            session.answered(false);
          }
          throw error;
        }
      };
    };
    try {
      const hedgeAfterMs = (): number | undefined =>
        options.urgency === 'prefetch' ? undefined : this.#components.hedging.neighbourDelayMs(ref.length);
      const chunk = await firstAnswer({ signal: options.signal, next, hedgeAfterMs });
      if (chunk !== undefined) return chunk;
    } finally {
      stop();
    }
    if (asked === 0) throw chunkMissing(ref, 'no neighbour has it');
    throw chunkMissing(ref, `none of ${asked} neighbours yielded it`);
  }

  asking(holders: readonly Neighbour[], { waitMs }: { waitMs: number }): ChunkStore {
    return {
      has: () => false,
      get: async (ref, options) => {
        // One that rests comes last: nobody else may have it.
        const nowMs = this.#components.clock.nowMs();
        const willing = holders.filter(({ id }) => !this.#scores.stats(id, nowMs).banned);
        const left = willing.toSorted((a, b) => Number(this.#rests(a)) - Number(this.#rests(b)));
        const next = async (hedge: boolean): Promise<Attempt<Chunk> | undefined> => {
          // Others wait for the same node: asking them as well would not be faster.
          const holder = hedge ? undefined : left.shift();
          if (holder === undefined) return undefined;
          const session = this.#session(ref.blob);
          return (signal) => this.#ask(holder, ref, { options, signal, waitMs, session });
        };
        const chunk = await firstAnswer({ signal: options.signal, next, hedgeAfterMs: () => undefined });
        if (chunk === undefined) throw chunkMissing(ref, 'no holder yielded it');
        return chunk;
      },
      close: async () => {},
    };
  }

  known(ref: ChunkRef): readonly Neighbour[] {
    const rows = this.#components.table(ref.blob);
    if (rows === undefined || !(ref.index < rows.count) || rows.row(ref.index).digest !== ref.digest) return [];
    const nowMs = this.#components.clock.nowMs();
    const holders = this.#session(ref.blob).holders(ref.index);
    const willing = holders.filter(({ id }) => !this.#scores.stats(id, nowMs).banned);
    const from = Math.floor(this.#random() * willing.length);
    return [...willing.slice(from), ...willing.slice(0, from)].slice(0, NEIGHBOUR_LIMITS.maxAsked);
  }

  stats(): SwarmDownloadStats {
    const nowMs = this.#components.clock.nowMs();
    const neighbours = this.#components.directory
      .peers()
      .map((neighbour) => ({ neighbour, stats: this.#scores.stats(neighbour.id, nowMs) }));
    return { corrupt: this.#corrupt, crossZoneBytes: this.#crossZoneBytes, hedges: this.#hedges, neighbours };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#sessions.clear();
  }

  #rests({ id }: Neighbour): boolean {
    return !this.#scores.usable(id, this.#components.clock.nowMs());
  }

  #search(
    ref: ChunkRef,
    options: Pick<GetOptions, 'signal' | 'urgency'>,
  ): { search: () => Promise<Neighbour | undefined>; stop: () => void; session: BlobSession } {
    const { directory, table, clock } = this.#components;
    const known = table(ref.blob);
    const inTable =
      known !== undefined && ref.index >= 0 && ref.index < known.count && known.row(ref.index).digest === ref.digest;
    const session = this.#session(ref.blob);
    const { search, stop } = createHolderSearch(
      { directory, session, nobody: this.#nobody, scores: this.#scores, clock },
      { ref, row: inTable ? ref.index : undefined, options },
    );
    return { search, stop, session };
  }

  #session(blob: Digest): BlobSession {
    const { directory, clock, table } = this.#components;
    const known = table(blob);
    const session =
      this.#sessions.get(blob) ?? createBlobSession({ directory, clock, random: this.#random }, { blob, table: known });
    // Without a table there are no rows, and so no bitmaps, to remember.
    if (known === undefined) return session;
    this.#sessions.delete(blob);
    this.#sessions.set(blob, session);
    const oldest = this.#sessions.keys().next();
    if (this.#sessions.size > SESSION_LIMITS.maxSessions && oldest.done !== true) this.#sessions.delete(oldest.value);
    return session;
  }

  async #ask(
    neighbour: Neighbour,
    ref: ChunkRef,
    init: { options: GetOptions; signal: AbortSignal; waitMs: number; session: BlobSession },
  ): Promise<Chunk> {
    const { client, clock, directory, hedging } = this.#components;
    const { signal, waitMs, session } = init;
    const { id } = neighbour;
    const startedMs = clock.nowMs();
    const answered = (answer: { error?: unknown }): void =>
      this.#components.answered?.(neighbour, ref.digest, { ...answer, ms: clock.nowMs() - startedMs });
    this.#scores.started(id);
    let outcome: Outcome | undefined;
    try {
      const { chunk, firstByteMs, totalMs } = await client.fetch(neighbour, ref, {
        signal,
        waitMs,
        get urgency() {
          return init.options.urgency ?? 'demand';
        },
      });
      const bytes = chunk.bytes.byteLength;
      // How long it took to get the chunk itself says nothing of how fast it answers.
      const latencyMs = waitMs === 0 ? firstByteMs : undefined;
      outcome = { kind: 'ok', bytes, firstByteMs: latencyMs, transferMs: totalMs - firstByteMs };
      if (waitMs === 0) hedging.note('neighbour', bytes, totalMs);
      if (neighbour.zone !== directory.self.zone) this.#crossZoneBytes += bytes;
      session.add(neighbour);
      answered({});
      return chunk;
    } catch (error) {
      if (!signal.aborted) answered({ error });
      if (!signal.aborted) outcome = this.#failure(neighbour, ref, error, session);
      // Aborted although the read goes on: it was too slow.
      else if (!init.options.signal.aborted && waitMs === 0) {
        outcome = { kind: 'slow', afterMs: clock.nowMs() - startedMs };
      }
      throw error;
    } finally {
      this.#scores.ended(id, outcome, clock.nowMs());
    }
  }

  #failure(neighbour: Neighbour, ref: ChunkRef, error: unknown, session: BlobSession): Outcome {
    const { directory, log } = this.#components;
    const { id } = neighbour;
    if (hasCode(error, 'CHUNK_MISSING')) {
      session.lacks(id, ref.index);
      return { kind: 'missing' };
    }
    if (hasCode(error, 'UNAVAILABLE')) {
      return { kind: 'busy', retryAfterMs: error.context.retryAfterMs ?? NEIGHBOUR_LIMITS.firstRestMs };
    }
    session.drop(id);
    if (!hasCode(error, 'CHUNK_CORRUPT')) {
      log.debug('neighbour failed', { peer: id, chunk: ref.digest, error: String(error) });
      return { kind: 'failed' };
    }
    this.#corrupt += 1;
    const forMs = NEIGHBOUR_LIMITS.banMs;
    log.warn('neighbour sent wrong bytes, it is banned', { peer: id, address: neighbour.address, chunk: ref.digest });
    directory.ban(id, { reason: `wrong bytes for ${ref.digest}`, forMs });
    return { kind: 'corrupt' };
  }
}
