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

/** What is remembered of one neighbour: so many numbers side by side, those that choosing looks at first. */
const RESUME_AT_MS = 0;
const BANNED_UNTIL_MS = 1;
/** NaN: not measured yet. The same for BYTES_PER_MS. */
const LATENCY_MS = 2;
const BYTES_PER_MS = 3;
/** Recent share of requests that failed, 0 to 1. */
const ERROR_RATE = 4;
const ACTIVE = 5;
const FAILURES_IN_ROW = 6;
/** Number of the request that was its last. */
const USED_AT = 7;
const REQUESTS = 8;
const CHUNKS = 9;
const BYTES = 10;
const MISSING = 11;
const BUSY = 12;
const ERRORS = 13;
const CORRUPT = 14;
const STRIDE = 16;
/** Neighbours for which there is room at first. */
const FIRST_CAPACITY = 16;

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
  /** Where the numbers of each neighbour begin. */
  readonly #places = new Map<Id, number>();
  #numbers = new Float64Array(FIRST_CAPACITY * STRIDE);
  #free: number[] = [];
  #made = 0;
  #requests = 0;

  constructor(ownZone: string, random: () => number) {
    this.#ownZone = ownZone;
    this.#random = random;
  }

  started(id: Id): void {
    const at = this.#placeOf(id);
    this.#requests += 1;
    this.#numbers[at + USED_AT] = this.#requests;
    this.#add(at + REQUESTS, 1);
    this.#add(at + ACTIVE, 1);
  }

  ended(id: Id, outcome: Outcome | undefined, nowMs: number): void {
    const at = this.#placeOf(id);
    const numbers = this.#numbers;
    numbers[at + ACTIVE] = Math.max(0, (numbers[at + ACTIVE] as number) - 1);
    if (outcome === undefined) return;
    const failed = outcome.kind === 'failed' || outcome.kind === 'corrupt';
    if (outcome.kind !== 'busy' && outcome.kind !== 'slow') this.#average(at + ERROR_RATE, failed ? 1 : 0);
    if (outcome.kind === 'ok') this.#noteOk(at, outcome);
    else if (outcome.kind === 'missing') this.#add(at + MISSING, 1);
    else if (outcome.kind === 'slow') this.#average(at + LATENCY_MS, outcome.afterMs);
    else if (outcome.kind === 'busy') {
      this.#add(at + BUSY, 1);
      numbers[at + RESUME_AT_MS] = nowMs + Math.min(outcome.retryAfterMs, NEIGHBOUR_LIMITS.longestBusyMs);
    } else this.#noteFailure(at, outcome.kind, nowMs);
    if (!failed) numbers[at + FAILURES_IN_ROW] = 0;
  }

  usable(id: Id, nowMs: number): boolean {
    const at = this.#places.get(id);
    if (at === undefined) return true;
    const numbers = this.#numbers;
    return (numbers[at + RESUME_AT_MS] as number) <= nowMs && (numbers[at + BANNED_UNTIL_MS] as number) <= nowMs;
  }

  choose<T extends Candidate<Id>>(candidates: readonly T[], bytes: number, nowMs: number): T | undefined {
    const usable = this.#usableOf(candidates, nowMs);
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
    const at = this.#places.get(id);
    const { unknownLatencyMs, unknownBytesPerMs } = NEIGHBOUR_LIMITS;
    if (at === undefined) return unknownLatencyMs + bytes / unknownBytesPerMs;
    const numbers = this.#numbers;
    const latencyMs = measured(numbers[at + LATENCY_MS] as number) ?? unknownLatencyMs;
    const bytesPerMs = measured(numbers[at + BYTES_PER_MS] as number) ?? unknownBytesPerMs;
    const failing = 1 + (NEIGHBOUR_LIMITS.errorFactor - 1) * (numbers[at + ERROR_RATE] as number);
    return (latencyMs + bytes / bytesPerMs) * (1 + (numbers[at + ACTIVE] as number)) * failing;
  }

  stats(id: Id, nowMs: number): NeighbourStats {
    const place = this.#places.get(id);
    const of = (field: number): number => (place === undefined ? 0 : (this.#numbers[place + field] as number));
    return {
      requests: of(REQUESTS),
      active: of(ACTIVE),
      chunks: of(CHUNKS),
      bytes: of(BYTES),
      missing: of(MISSING),
      busy: of(BUSY),
      errors: of(ERRORS),
      corrupt: of(CORRUPT),
      latencyMs: place === undefined ? undefined : measured(of(LATENCY_MS)),
      bytesPerMs: place === undefined ? undefined : measured(of(BYTES_PER_MS)),
      restingMs: Math.max(0, of(RESUME_AT_MS) - nowMs, of(BANNED_UNTIL_MS) - nowMs),
      banned: of(BANNED_UNTIL_MS) > nowMs,
    };
  }

  #add(at: number, more: number): void {
    this.#numbers[at] = (this.#numbers[at] as number) + more;
  }

  #average(at: number, newest: number): void {
    const known = this.#numbers[at] as number;
    this.#numbers[at] = Number.isNaN(known) ? newest : known + NEIGHBOUR_LIMITS.newestWeight * (newest - known);
  }

  #noteOk(at: number, { bytes, firstByteMs, transferMs }: Extract<Outcome, { kind: 'ok' }>): void {
    this.#add(at + CHUNKS, 1);
    this.#add(at + BYTES, bytes);
    if (firstByteMs !== undefined) this.#average(at + LATENCY_MS, firstByteMs);
    // What fits one segment tells nothing of throughput.
    if (bytes >= MIN_RATED_BYTES && transferMs > 0) this.#average(at + BYTES_PER_MS, bytes / transferMs);
  }

  #noteFailure(at: number, kind: 'failed' | 'corrupt', nowMs: number): void {
    const { firstRestMs, longestRestMs, banMs } = NEIGHBOUR_LIMITS;
    if (kind === 'corrupt') {
      this.#add(at + CORRUPT, 1);
      this.#numbers[at + BANNED_UNTIL_MS] = nowMs + banMs;
      return;
    }
    this.#add(at + ERRORS, 1);
    // Requests that were under way together fail together: they are one failure.
    if ((this.#numbers[at + RESUME_AT_MS] as number) > nowMs) return;
    this.#add(at + FAILURES_IN_ROW, 1);
    const restMs = backoffMs(this.#numbers[at + FAILURES_IN_ROW] as number, {
      firstMs: firstRestMs,
      longestMs: longestRestMs,
    });
    this.#numbers[at + RESUME_AT_MS] = nowMs + restMs;
  }

  #usableOf<T extends Candidate<Id>>(candidates: readonly T[], nowMs: number): readonly T[] {
    let count = 0;
    for (const { id } of candidates) if (this.usable(id, nowMs)) count += 1;
    if (count === candidates.length) return candidates;
    return count === 0 ? [] : candidates.filter(({ id }) => this.usable(id, nowMs));
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

  #placeOf(id: Id): number {
    const known = this.#places.get(id);
    if (known !== undefined) return known;
    const at = this.#free.pop() ?? this.#made * STRIDE;
    if (at === this.#made * STRIDE) this.#made += 1;
    if (at === this.#numbers.length) {
      const numbers = new Float64Array(2 * this.#numbers.length);
      numbers.set(this.#numbers);
      this.#numbers = numbers;
    }
    this.#numbers.fill(0, at, at + STRIDE);
    this.#numbers[at + LATENCY_MS] = Number.NaN;
    this.#numbers[at + BYTES_PER_MS] = Number.NaN;
    this.#numbers[at + USED_AT] = this.#requests;
    this.#places.set(id, at);
    if (this.#places.size > NEIGHBOUR_LIMITS.maxRemembered) this.#forgetOldest(at);
    return at;
  }

  /** Forgets the one that was used longest ago: looking for it is rarer than using one. */
  #forgetOldest(but: number): void {
    const numbers = this.#numbers;
    let oldest: Id | undefined;
    let place = -1;
    for (const [id, at] of this.#places) {
      // One that is banned or has requests under way is not the one to forget.
      if (at === but || (numbers[at + ACTIVE] as number) > 0 || (numbers[at + BANNED_UNTIL_MS] as number) > 0) continue;
      if (place !== -1 && (numbers[at + USED_AT] as number) >= (numbers[place + USED_AT] as number)) continue;
      oldest = id;
      place = at;
    }
    if (place === -1) return;
    this.#places.delete(oldest as Id);
    this.#free.push(place);
  }
}

/** Smallest transfer whose duration says something of throughput, bytes. */
const MIN_RATED_BYTES = 64 * 1024;

function measured(number: number): number | undefined {
  return Number.isNaN(number) ? undefined : number;
}
