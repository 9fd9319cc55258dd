import type { Clock } from '../clock.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Fault, FaultAnswer, Trap } from './trap.ts';

/** What can fill a device: returns once [offset, offset + length) is on disk and in the device's presence map. */
export interface Fillable {
  /** Name for people, a blob digest. */
  readonly name: string;
  fill(offset: number, length: number, options: { signal: AbortSignal }): Promise<void>;
}

/** Counters and latencies of answered faults. */
export interface FaultLoopStats {
  readonly filled: number;
  readonly failed: number;
  readonly inFlight: number;
  /** Answered faults per latency bucket: bucket i holds those below FAULT_BUCKETS_MS[i], the last one the rest. */
  readonly latency: readonly number[];
}

/** Upper bounds of the latency buckets, milliseconds. */
export const FAULT_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000] as const;

/** Answers every fault of a trap. */
export interface FaultLoop {
  /** Resolves when the trap's faults have ended and the last one is answered. */
  readonly done: Promise<void>;
  stats(): FaultLoopStats;
  /** Aborts what is being filled (those readers get EIO) and answers later faults with EIO. Idempotent. */
  stop(): void;
  /** Once the trap is abandoned: aborts what is being filled, and says nothing of it, its readers wait. Idempotent. */
  leave(): void;
}

/** What the loop works with. */
export interface FaultLoopComponents {
  readonly trap: Pick<Trap, 'faults' | 'answer'>;
  device(id: number): Fillable | undefined;
  /** The images that a device of this number is a layer of, for the log. */
  imagesOf?(id: number): readonly string[];
  readonly log: Logger;
  readonly clock: Clock;
}

/** Tuning of the fault loop. */
export interface FaultLoopInit {
  /** A read that is not filled by then fails: readers must get an error, never hang (default 30 s). */
  readonly deadlineMs?: number;
  /** Faults being filled at once; more wait their turn, their deadline running (default 512: bounds what is queued; the bytes are bounded where they are fetched). */
  readonly maxInFlight?: number;
}

const DEADLINE_MS = 30_000;
const MAX_IN_FLIGHT = 512;
/**
 * The kernel splits a read and asks again for what was denied, two or three events for one read(2). So that its caller
 * does not wait as long each time, the reads that follow one which failed after a long wait have less patience for a
 * while.
 */
const IMPATIENT_FOR_MS = 2000;
/** A failure after this long was a wait for a source that is away; a quick one says nothing about the next. */
const LONG_FAILURE_MS = 5000;
const IMPATIENT_DEADLINE_MS = 500;
/** One line per blob and this much time, however many of its reads fail. */
const LOG_EVERY_MS = 5000;

/** Starts answering the faults of `trap`; never throws, never leaves a fault unanswered. */
export function createFaultLoop(components: FaultLoopComponents, init: FaultLoopInit = {}): FaultLoop {
  const loop = new Loop(components, init);
  return { done: loop.run(), stats: () => loop.stats(), stop: () => loop.stop(), leave: () => loop.leave() };
}

class Loop {
  readonly #parts: FaultLoopComponents;
  readonly #deadlineMs: number;
  readonly #maxInFlight: number;
  readonly #stopping = new AbortController();
  readonly #latency = new Array<number>(FAULT_BUCKETS_MS.length + 1).fill(0);
  readonly #failures = new Map<string, { count: number; loggedAt: number }>();
  /** By device: until when its reads have less patience. */
  readonly #impatientUntil = new Map<number, number>();
  readonly #idle = new Set<() => void>();
  readonly #turn: (() => void)[] = [];
  #left = false;
  #inFlight = 0;
  #waiting = 0;
  #filled = 0;
  #failed = 0;

  constructor(components: FaultLoopComponents, init: FaultLoopInit) {
    this.#parts = components;
    this.#deadlineMs = init.deadlineMs ?? DEADLINE_MS;
    this.#maxInFlight = init.maxInFlight ?? MAX_IN_FLIGHT;
  }

  async run(): Promise<void> {
    for await (const fault of this.#parts.trap.faults) {
      this.#waiting += 1;
      void this.#serve(fault);
    }
    if (this.#waiting > 0) await new Promise<void>((resolve) => this.#idle.add(resolve));
  }

  stats(): FaultLoopStats {
    return { filled: this.#filled, failed: this.#failed, inFlight: this.#inFlight, latency: [...this.#latency] };
  }

  stop(): void {
    this.#stopping.abort(new ShoalError('UNAVAILABLE', 'the daemon is stopping'));
  }

  leave(): void {
    this.#left = true;
    this.stop();
  }

  async #serve(fault: Fault): Promise<void> {
    const { trap, clock } = this.#parts;
    const startedAt = clock.nowMs();
    let answer: FaultAnswer = 'EIO';
    try {
      await this.#fillInTime(fault);
      answer = 'filled';
      this.#filled += 1;
    } catch (error) {
      if (clock.nowMs() - startedAt >= LONG_FAILURE_MS) this.#waitedInVain(fault.device);
      answer = errnoFor(error);
      this.#failed += 1;
      if (!this.#left) this.#report(fault, error);
    } finally {
      trap.answer(fault, answer);
      this.#observe(clock.nowMs() - startedAt);
      this.#waiting -= 1;
      if (this.#waiting === 0) for (const resolve of this.#idle) resolve();
    }
  }

  /** Rejects at the deadline even when `fill` ignores its signal. */
  async #fillInTime(fault: Fault): Promise<void> {
    const device = this.#parts.device(fault.device);
    if (device === undefined) throw new ShoalError('NOT_FOUND', `no device ${fault.device}`);
    const over = new AbortController();
    const signal = AbortSignal.any([over.signal, this.#stopping.signal]);
    signal.throwIfAborted();
    const patienceMs = this.#patienceMs(fault.device);
    const timer = setTimeout(() => {
      if (patienceMs === this.#deadlineMs) this.#waitedInVain(fault.device);
      over.abort(new ShoalError('DEADLINE_EXCEEDED', `no source gave the data within ${patienceMs / 1000} s`));
    }, patienceMs);
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    try {
      await Promise.race([this.#fillInTurn(device, fault, signal), aborted]);
    } finally {
      clearTimeout(timer);
    }
  }

  #patienceMs(device: number): number {
    const until = this.#impatientUntil.get(device);
    if (until === undefined) return this.#deadlineMs;
    if (this.#parts.clock.nowMs() < until) return Math.min(IMPATIENT_DEADLINE_MS, this.#deadlineMs);
    this.#impatientUntil.delete(device);
    return this.#deadlineMs;
  }

  /** Only after a long wait, or a slow registry would never be waited for again. */
  #waitedInVain(device: number): void {
    this.#impatientUntil.set(device, this.#parts.clock.nowMs() + IMPATIENT_FOR_MS);
  }

  async #fillInTurn(device: Fillable, { offset, length }: Fault, signal: AbortSignal): Promise<void> {
    if (this.#inFlight >= this.#maxInFlight) await new Promise<void>((resolve) => this.#turn.push(resolve));
    else this.#inFlight += 1;
    try {
      signal.throwIfAborted();
      await device.fill(offset, length, { signal });
    } finally {
      // the place goes straight to the next in line
      const next = this.#turn.shift();
      if (next === undefined) this.#inFlight -= 1;
      else next();
    }
  }

  #observe(ms: number): void {
    const found = FAULT_BUCKETS_MS.findIndex((bound) => ms < bound);
    const bucket = found === -1 ? FAULT_BUCKETS_MS.length : found;
    this.#latency[bucket] = (this.#latency[bucket] as number) + 1;
  }

  #report(fault: Fault, error: unknown): void {
    const blob = this.#parts.device(fault.device)?.name ?? `device ${fault.device}`;
    const now = this.#parts.clock.nowMs();
    const failure = this.#failures.get(blob) ?? { count: 0, loggedAt: Number.NEGATIVE_INFINITY };
    this.#failures.set(blob, failure);
    failure.count += 1;
    if (now - failure.loggedAt < LOG_EVERY_MS) return;
    const why = error instanceof ShoalError ? error.describe() : String(error);
    const image = this.#parts.imagesOf?.(fault.device).join(' ');
    const { count } = failure;
    this.#parts.log.error('cold reads fail', { image, blob, count, offset: fault.offset, error: why });
    failure.count = 0;
    failure.loggedAt = now;
  }
}

function errnoFor(error: unknown): 'EIO' | 'ENOSPC' {
  const cause = error instanceof ShoalError ? (error.context.cause ?? error) : error;
  const full = (cause as { code?: unknown } | undefined)?.code === 'ENOSPC';
  return full || (hasCode(error, 'KERNEL_CALL') && error.context.errno === 28) ? 'ENOSPC' : 'EIO';
}
