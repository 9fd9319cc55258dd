import { backoffMs } from './backoff.ts';
import { NEIGHBOUR_LIMITS } from './neighbour-limits.ts';

/** What a request to a neighbour came to. */
export type Outcome =
  | {
      readonly kind: 'ok';
      readonly bytes: number;
      /** Undefined when it says nothing of the neighbour: it was getting the chunk itself. */
      readonly firstByteMs: number | undefined;
      /** Of the transfer, from its first byte to its last. */
      readonly transferMs: number;
    }
  | { readonly kind: 'missing' }
  /** Another source was faster than this many ms. */
  | { readonly kind: 'slow'; readonly afterMs: number }
  | { readonly kind: 'busy'; readonly retryAfterMs: number }
  | { readonly kind: 'failed' }
  | { readonly kind: 'corrupt' };

/** What is known of one neighbour. */
export interface NeighbourStats {
  readonly requests: number;
  readonly active: number;
  readonly chunks: number;
  readonly bytes: number;
  readonly missing: number;
  readonly busy: number;
  readonly errors: number;
  readonly corrupt: number;
  /** Average of recent times to the first byte, ms; undefined when none was measured. */
  readonly latencyMs: number | undefined;
  /** Average of recent throughputs, bytes per ms. */
  readonly bytesPerMs: number | undefined;
  /** Milliseconds until it is asked again; 0 when it may be asked now. */
  readonly restingMs: number;
  readonly banned: boolean;
}

/** A neighbour that can be chosen. */
export interface Candidate<Id = string> {
  readonly id: Id;
  readonly zone: string;
}

/** Remembers how neighbours did and chooses among them. Pure: time and chance come from outside. */
export interface NeighbourScores<Id = string> {
  /** A request was sent. */
  started(id: Id): void;
  /** It ended; `undefined` when it was given up, which says nothing of the neighbour. */
  ended(id: Id, outcome: Outcome | undefined, nowMs: number): void;
  /** False while the neighbour rests or is banned. */
  usable(id: Id, nowMs: number): boolean;
  /** The one to ask for `bytes` bytes: the better of two taken at random, own zone first; undefined when none is usable. */
  choose<T extends Candidate<Id>>(candidates: readonly T[], bytes: number, nowMs: number): T | undefined;
  /** Expected ms to get `bytes` bytes from this neighbour, its present load and its failures included. */
  expectedMs(id: Id, bytes: number): number;
  stats(id: Id, nowMs: number): NeighbourStats;
}

interface Record {
  requests: number;
  active: number;
  chunks: number;
  bytes: number;
  missing: number;
  busy: number;
  errors: number;
  corrupt: number;
  /** NaN: not measured yet. The same for `bytesPerMs`. */
  latencyMs: number;
  bytesPerMs: number;
  /** Recent share of requests that failed, 0 to 1. */
  errorRate: number;
  failuresInRow: number;
  resumeAtMs: number;
  bannedUntilMs: number;
  /** Number of the request that was its last. */
  usedAt: number;
}

/** `ownZone`: this node's label, empty when it has none; `random`: [0, 1). */
export function createNeighbourScores<Id = string>(init: {
  ownZone: string;
  random: () => number;
}): NeighbourScores<Id> {
  return new Scores<Id>(init.ownZone, init.random);
}

class Scores<Id> implements NeighbourScores<Id> {
  readonly #ownZone: string;
  readonly #random: () => number;
  readonly #records = new Map<Id, Record>();
  #requests = 0;

  constructor(ownZone: string, random: () => number) {
    this.#ownZone = ownZone;
    this.#random = random;
  }

  started(id: Id): void {
    const record = this.#recordOf(id);
    this.#requests += 1;
    record.usedAt = this.#requests;
    record.requests += 1;
    record.active += 1;
  }

  ended(id: Id, outcome: Outcome | undefined, nowMs: number): void {
    const record = this.#records.get(id) ?? this.#recordOf(id);
    record.active = Math.max(0, record.active - 1);
    if (outcome === undefined) return;
    const failed = outcome.kind === 'failed' || outcome.kind === 'corrupt';
    if (outcome.kind !== 'busy' && outcome.kind !== 'slow')
      record.errorRate = average(record.errorRate, failed ? 1 : 0);
    if (outcome.kind === 'ok') noteOk(record, outcome);
    else if (outcome.kind === 'missing') record.missing += 1;
    else if (outcome.kind === 'slow') record.latencyMs = average(record.latencyMs, outcome.afterMs);
    else if (outcome.kind === 'busy') {
      record.busy += 1;
      record.resumeAtMs = nowMs + Math.min(outcome.retryAfterMs, NEIGHBOUR_LIMITS.longestBusyMs);
    } else this.#noteFailure(record, outcome.kind, nowMs);
    if (!failed) record.failuresInRow = 0;
  }

  usable(id: Id, nowMs: number): boolean {
    const record = this.#records.get(id);
    return record === undefined || (record.resumeAtMs <= nowMs && record.bannedUntilMs <= nowMs);
  }

  choose<T extends Candidate<Id>>(candidates: readonly T[], bytes: number, nowMs: number): T | undefined {
    const usable = candidates.filter(({ id }) => this.usable(id, nowMs));
    const near = this.#ownZone === '' ? [] : usable.filter(({ zone }) => zone === this.#ownZone);
    if (near.length === 0 || near.length === usable.length) return this.#betterOfTwo(usable, bytes);
    const best = this.#betterOfTwo(near, bytes) as T;
    const far = this.#betterOfTwo(
      usable.filter(({ zone }) => zone !== this.#ownZone),
      bytes,
    ) as T;
    const worthCrossing =
      this.expectedMs(far.id, bytes) * NEIGHBOUR_LIMITS.otherZoneFactor < this.expectedMs(best.id, bytes);
    return worthCrossing ? far : best;
  }

  expectedMs(id: Id, bytes: number): number {
    const record = this.#records.get(id);
    const { unknownLatencyMs, unknownBytesPerMs } = NEIGHBOUR_LIMITS;
    if (record === undefined) return unknownLatencyMs + bytes / unknownBytesPerMs;
    const latencyMs = Number.isNaN(record.latencyMs) ? unknownLatencyMs : record.latencyMs;
    const bytesPerMs = Number.isNaN(record.bytesPerMs) ? unknownBytesPerMs : record.bytesPerMs;
    const alone = latencyMs + bytes / bytesPerMs;
    return alone * (1 + record.active) * (1 + (NEIGHBOUR_LIMITS.errorFactor - 1) * record.errorRate);
  }

  stats(id: Id, nowMs: number): NeighbourStats {
    const record = this.#records.get(id) ?? newRecord(0);
    const { requests, active, chunks, bytes, missing, busy, errors, corrupt, latencyMs, bytesPerMs } = record;
    return {
      requests,
      active,
      chunks,
      bytes,
      missing,
      busy,
      errors,
      corrupt,
      latencyMs: Number.isNaN(latencyMs) ? undefined : latencyMs,
      bytesPerMs: Number.isNaN(bytesPerMs) ? undefined : bytesPerMs,
      restingMs: Math.max(0, record.resumeAtMs - nowMs, record.bannedUntilMs - nowMs),
      banned: record.bannedUntilMs > nowMs,
    };
  }

  #noteFailure(record: Record, kind: 'failed' | 'corrupt', nowMs: number): void {
    const { firstRestMs, longestRestMs, banMs } = NEIGHBOUR_LIMITS;
    if (kind === 'corrupt') {
      record.corrupt += 1;
      record.bannedUntilMs = nowMs + banMs;
      return;
    }
    record.errors += 1;
    // Requests that were under way together fail together: they are one failure.
    if (record.resumeAtMs > nowMs) return;
    record.failuresInRow += 1;
    record.resumeAtMs = nowMs + backoffMs(record.failuresInRow, { firstMs: firstRestMs, longestMs: longestRestMs });
  }

  #betterOfTwo<T extends Candidate<Id>>(candidates: readonly T[], bytes: number): T | undefined {
    const { length } = candidates;
    if (length < 2) return candidates[0];
    const first = Math.floor(this.#random() * length);
    const step = 1 + Math.floor(this.#random() * (length - 1));
    const one = candidates[first] as T;
    const other = candidates[(first + step) % length] as T;
    return this.expectedMs(other.id, bytes) < this.expectedMs(one.id, bytes) ? other : one;
  }

  #recordOf(id: Id): Record {
    const known = this.#records.get(id);
    if (known !== undefined) return known;
    const made = newRecord(this.#requests);
    this.#records.set(id, made);
    if (this.#records.size > NEIGHBOUR_LIMITS.maxRemembered) this.#forgetOldest(made);
    return made;
  }

  /** Forgets the one that was used longest ago: looking for it is rarer than using one. */
  #forgetOldest(but: Record): void {
    let oldest: Id | undefined;
    let usedAt = Number.POSITIVE_INFINITY;
    for (const [id, record] of this.#records) {
      // One that is banned or has requests under way is not the one to forget.
      if (record === but || record.active > 0 || record.bannedUntilMs > 0 || record.usedAt >= usedAt) continue;
      oldest = id;
      usedAt = record.usedAt;
    }
    if (oldest !== undefined) this.#records.delete(oldest);
  }
}

function noteOk(record: Record, outcome: Extract<Outcome, { kind: 'ok' }>): void {
  record.chunks += 1;
  record.bytes += outcome.bytes;
  const { firstByteMs, transferMs } = outcome;
  if (firstByteMs !== undefined) record.latencyMs = average(record.latencyMs, firstByteMs);
  // What fits one segment tells nothing of throughput.
  if (outcome.bytes >= MIN_RATED_BYTES && transferMs > 0) {
    record.bytesPerMs = average(record.bytesPerMs, outcome.bytes / transferMs);
  }
}

/** Smallest transfer whose duration says something of throughput, bytes. */
const MIN_RATED_BYTES = 64 * 1024;

function average(known: number, newest: number): number {
  return Number.isNaN(known) ? newest : known + NEIGHBOUR_LIMITS.newestWeight * (newest - known);
}

function newRecord(usedAt: number): Record {
  return {
    requests: 0,
    active: 0,
    chunks: 0,
    bytes: 0,
    missing: 0,
    busy: 0,
    errors: 0,
    corrupt: 0,
    latencyMs: Number.NaN,
    bytesPerMs: Number.NaN,
    errorRate: 0,
    failuresInRow: 0,
    resumeAtMs: 0,
    bannedUntilMs: 0,
    usedAt,
  };
}
