import type { Clock } from '../clock.ts';
import type { ChunkRef } from '../core/chunk.ts';
import type { Digest } from '../core/digest.ts';
import { type ErrorCode, ShoalError } from '../errors.ts';
import type { ChunkStore, GetOptions, Urgency } from './chunk-store.ts';

/** What a source said when it was asked: `missing` is an answer, an error code is a failure. */
export type StepOutcome = 'served' | 'missing' | 'aborted' | ErrorCode | 'OTHER';

/** A source that was asked for a chunk. */
export interface FetchStep {
  readonly source: string;
  readonly outcome: StepOutcome;
  readonly ms: number;
  /** Which of several: a neighbour's id, a mirror's host. */
  readonly peer?: string;
  /** Why it did not serve, for people. */
  readonly why?: string;
}

/** One fetch of one chunk, from the question to the last answer. */
export interface FetchRecord {
  /** Wall-clock milliseconds of its end. */
  readonly at: number;
  readonly digest: Digest;
  /** The layer it was fetched for. */
  readonly blob: Digest;
  readonly bytes: number;
  readonly urgency: Urgency;
  /** In the order they ended; the last one served, or nobody did. */
  readonly steps: readonly FetchStep[];
}

/** What one source did for one layer. */
export interface SourceTally {
  /** Questions that were answered, in whatever way. */
  requests: number;
  chunks: number;
  bytes: number;
  missing: number;
  readonly errors: Partial<Record<ErrorCode | 'OTHER', number>>;
  /** Total and longest time of what it served. */
  servedMs: number;
  slowestMs: number;
}

/** Where every chunk came from: counters per layer and source, and the latest fetches in full. */
export interface FetchLedger {
  /** Goes right below `dedup`, around all sources: one record per fetch. */
  watch(inner: ChunkStore): ChunkStore;
  /** Goes around one source. */
  source(name: string, inner: ChunkStore): ChunkStore;
  /**
   * A source that asks several peers tells what each of them said: the chunk, or an error. Ignored when the chunk is not
   * being fetched.
   */
  answered(digest: Digest, by: { source: string; peer: string; ms: number; error?: unknown }): void;
  /** By source, since the daemon started. */
  tallies(blob: Digest): Readonly<Record<string, SourceTally>>;
  /** The latest fetches that `wanted` is true for, newest first. */
  recent(wanted: (record: FetchRecord) => boolean, most: number): readonly FetchRecord[];
}

/** Fetches kept: about 300 bytes each, some seconds of a node at full speed, hours of one that is mostly warm. */
const RECORDS_KEPT = 4_096;
/** Layers whose counters are kept, least recently fetched out first. */
const LAYERS_KEPT = 1_024;
/** Steps of one record: more than there are sources, with a few peers each. */
const STEPS_KEPT = 12;
/** Characters of a reason. */
const WHY_LENGTH = 160;

/** A ledger that holds `records` fetches. */
export function createFetchLedger({ clock }: { clock: Clock }, init: { records?: number } = {}): FetchLedger {
  return new Ledger(clock, init.records ?? RECORDS_KEPT);
}

class Ledger implements FetchLedger {
  readonly #clock: Clock;
  readonly #ring: (FetchRecord | undefined)[];
  readonly #layers = new Map<Digest, Record<string, SourceTally>>();
  /** Fetches under way: below `dedup` there is one per digest. */
  readonly #open = new Map<Digest, FetchStep[]>();
  #next = 0;

  constructor(clock: Clock, records: number) {
    this.#clock = clock;
    this.#ring = new Array<FetchRecord | undefined>(records).fill(undefined);
  }

  watch(inner: ChunkStore): ChunkStore {
    return {
      ...passing(inner),
      get: async (ref, options) => {
        const steps: FetchStep[] = [];
        this.#open.set(ref.digest, steps);
        try {
          return await inner.get(ref, options);
        } finally {
          if (this.#open.get(ref.digest) === steps) this.#open.delete(ref.digest);
          this.#keep(ref, options, steps);
        }
      },
    };
  }

  source(name: string, inner: ChunkStore): ChunkStore {
    return {
      ...passing(inner),
      get: async (ref, options) => {
        const startedMs = this.#clock.nowMs();
        try {
          const chunk = await inner.get(ref, options);
          this.#note(ref, { source: name, outcome: 'served', ms: this.#clock.nowMs() - startedMs });
          return chunk;
        } catch (error) {
          const outcome = outcomeOf(error, options.signal);
          const why = error instanceof Error ? reasonOf(error, ref) : undefined;
          const ms = this.#clock.nowMs() - startedMs;
          this.#note(ref, { source: name, outcome, ms, ...(why === undefined ? {} : { why }) });
          throw error;
        }
      },
    };
  }

  answered(digest: Digest, { error, ...by }: { source: string; peer: string; ms: number; error?: unknown }): void {
    const steps = this.#open.get(digest);
    if (steps === undefined) return;
    if (error === undefined) {
      push(steps, { ...by, outcome: 'served' });
      return;
    }
    const why = error instanceof Error ? { why: reasonOf(error, { digest }) } : {};
    push(steps, { ...by, outcome: outcomeOf(error), ...why });
  }

  tallies(blob: Digest): Readonly<Record<string, SourceTally>> {
    return this.#layers.get(blob) ?? {};
  }

  recent(wanted: (record: FetchRecord) => boolean, most: number): readonly FetchRecord[] {
    const found: FetchRecord[] = [];
    for (let back = 1; back <= this.#ring.length && found.length < most; back += 1) {
      const record = this.#ring[(this.#next - back + this.#ring.length) % this.#ring.length];
      if (record === undefined) break;
      if (wanted(record)) found.push(record);
    }
    return found;
  }

  #note(ref: ChunkRef, step: FetchStep): void {
    count(this.#tally(ref.blob, step.source), ref, step);
    const steps = this.#open.get(ref.digest);
    // that this node did not have it is why it was fetched
    if (steps === undefined || (step.source === 'local' && step.outcome === 'missing')) return;
    const last = steps.at(-1);
    const isSaid = last?.peer !== undefined && last.source === step.source && last.outcome === step.outcome;
    if (!isSaid) push(steps, step);
  }

  #tally(blob: Digest, source: string): SourceTally {
    const layer = this.#layers.get(blob) ?? {};
    this.#layers.delete(blob);
    this.#layers.set(blob, layer);
    const oldest = this.#layers.keys().next();
    if (this.#layers.size > LAYERS_KEPT && oldest.done !== true) this.#layers.delete(oldest.value);
    layer[source] ??= emptyTally();
    return layer[source];
  }

  #keep({ digest, blob, length }: ChunkRef, { urgency = 'demand' }: GetOptions, steps: FetchStep[]): void {
    this.#ring[this.#next] = { at: this.#clock.wallTimeMs(), digest, blob, bytes: length, urgency, steps };
    this.#next = (this.#next + 1) % this.#ring.length;
  }
}

/** Counters at zero. */
export function emptyTally(): SourceTally {
  return { requests: 0, chunks: 0, bytes: 0, missing: 0, errors: {}, servedMs: 0, slowestMs: 0 };
}

function count(tally: SourceTally, { length }: ChunkRef, { outcome, ms }: FetchStep): void {
  tally.requests += 1;
  if (outcome === 'served') {
    tally.chunks += 1;
    tally.bytes += length;
    tally.servedMs += ms;
    tally.slowestMs = Math.max(tally.slowestMs, ms);
  } else if (outcome === 'missing') tally.missing += 1;
  else if (outcome !== 'aborted') tally.errors[outcome] = (tally.errors[outcome] ?? 0) + 1;
}

function passing(inner: ChunkStore): Omit<ChunkStore, 'get'> {
  return {
    has: (ref) => inner.has(ref),
    ...(inner.put === undefined ? {} : { put: inner.put.bind(inner) }),
    close: () => inner.close(),
  };
}

function outcomeOf(error: unknown, signal?: AbortSignal): StepOutcome {
  const code = error instanceof ShoalError ? error.code : 'OTHER';
  if (code === 'CHUNK_MISSING') return 'missing';
  return signal?.aborted === true ? 'aborted' : code;
}

/** The message without the chunk's name, which the record has anyway. */
function reasonOf(error: Error, { digest }: Pick<ChunkRef, 'digest'>): string {
  return cut(error.message.replace(`chunk ${digest}: `, ''));
}

function cut(why: string): string {
  return why.length > WHY_LENGTH ? `${why.slice(0, WHY_LENGTH - 1)}…` : why;
}

function push(steps: FetchStep[], step: FetchStep): void {
  if (steps.length < STEPS_KEPT) steps.push(step);
  else steps[STEPS_KEPT - 1] = step;
}
