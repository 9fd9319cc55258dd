import type { Clock } from '../../src/clock.ts';
import { type Bucket, type Queued, TimerQueue } from './timer-queue.ts';

/** Something that has events of its own, merged with the timeline's timers: the network. */
export interface EventSource {
  /** When its next event is due, ms; Infinity when there is none. */
  nextMs(): number;
  /** The time has come: handles everything due. */
  fire(): void;
}

/** A timer that can be cancelled; nothing when it went off. */
export interface Timer {
  cancel(): void;
}

/** Something that is waited for: what is in the timeline once at a time. Its own timer, without a callback beside it. */
export abstract class Alarm implements Queued {
  /** Its place in the timeline's queue. */
  at = -1;
  bucket: Bucket<Queued> | undefined;

  /** Its time has come. */
  abstract ring(): void;
}

/** A promise of simulated work. Settling it lets whoever awaits it run before the time moves on. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(reason: unknown): void;
}

/**
 * Virtual time: events in the order of their time, then of their making. Plain callbacks and asynchronous code that
 * uses `clock` run together; the time stands still until everything that was woken waits again.
 */
export interface Timeline {
  readonly clock: Clock;
  nowMs(): number;
  after(delayMs: number, callback: () => void): Timer;
  /** Rings after so long; it must not be waited for already. */
  set(alarm: Alarm, delayMs: number): void;
  deferred<T>(): Deferred<T>;
  /** Says that a promise was settled by other means, so that its waiters run first. */
  touch(): void;
  attach(source: EventSource): void;
  /** Events handled so far. */
  readonly handled: number;
  /** Runs until `isOver` or until nothing is left to do; now and then `onTurn` is called and other work of the process gets a turn. */
  run(init: { isOver(): boolean; signal: AbortSignal; onTurn?: () => void }): Promise<void>;
}

/** Events between two looks at the real time: some milliseconds. */
const EVENTS_PER_LOOK = 20_000;

class Callback extends Alarm implements Timer {
  readonly #queue: TimerQueue<Alarm>;
  readonly #callback: () => void;

  constructor(queue: TimerQueue<Alarm>, callback: () => void) {
    super();
    this.#queue = queue;
    this.#callback = callback;
  }

  ring(): void {
    this.#callback();
  }

  cancel(): void {
    this.#queue.remove(this);
  }
}

/** A timeline at 0 ms. */
export function createTimeline(): Timeline {
  return new VirtualTime();
}

class VirtualTime implements Timeline {
  readonly clock: Clock;
  readonly #alarms = new TimerQueue<Alarm>();
  readonly #sources: EventSource[] = [];
  #nowMs = 0;
  #touched = false;
  #handled = 0;

  constructor() {
    this.clock = {
      nowMs: () => this.#nowMs,
      wallTimeMs: () => this.#nowMs,
      sleep: (ms, options = {}) => this.#sleep(ms, options.signal),
    };
  }

  get handled(): number {
    return this.#handled;
  }

  nowMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const alarm = new Callback(this.#alarms, callback);
    this.set(alarm, delayMs);
    return alarm;
  }

  set(alarm: Alarm, delayMs: number): void {
    this.#alarms.add(alarm, this.#nowMs + Math.max(0, delayMs));
  }

  deferred<T>(): Deferred<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    return {
      promise,
      resolve: (value) => {
        this.#touched = true;
        resolve(value);
      },
      reject: (reason) => {
        this.#touched = true;
        reject(reason);
      },
    };
  }

  touch(): void {
    this.#touched = true;
  }

  attach(source: EventSource): void {
    this.#sources.push(source);
  }

  /**
   * Between two events every promise job must have run, or code would see a later time than it should. Node runs its
   * tick queue and then all promise jobs, turn by turn; so each step is a tick that a promise job asks for.
   */
  run(init: { isOver(): boolean; signal: AbortSignal; onTurn?: () => void }): Promise<void> {
    return new Promise((resolve, reject) => {
      const next = (): void => process.nextTick(step);
      const step = (): void => {
        try {
          init.signal.throwIfAborted();
          const more = this.#runUntilTouched(init.isOver);
          if (more === 'over') resolve();
          else if (more === 'look') {
            init.onTurn?.();
            setImmediate(() => queueMicrotask(next));
          } else queueMicrotask(next);
        } catch (error) {
          reject(error);
        }
      };
      queueMicrotask(next);
    });
  }

  #runUntilTouched(isOver: () => boolean): 'over' | 'look' | 'touched' {
    for (;;) {
      this.#touched = false;
      if (isOver() || !this.#runOne()) return this.#touched ? 'touched' : 'over';
      this.#handled += 1;
      if (this.#handled % EVENTS_PER_LOOK === 0) return 'look';
      if (this.#touched) return 'touched';
    }
  }

  #runOne(): boolean {
    let due: EventSource | undefined;
    let dueMs = this.#alarms.firstMs;
    for (let at = 0; at < this.#sources.length; at += 1) {
      const source = this.#sources[at] as EventSource;
      const atMs = source.nextMs();
      if (atMs > dueMs || atMs === Number.POSITIVE_INFINITY) continue;
      due = source;
      dueMs = atMs;
    }
    if (dueMs === Number.POSITIVE_INFINITY) return false;
    this.#nowMs = Math.max(this.#nowMs, dueMs);
    if (due !== undefined) {
      due.fire();
      return true;
    }
    this.#alarms.take().ring();
    return true;
  }

  #sleep(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const { promise, resolve, reject } = this.deferred<void>();
    if (signal?.aborted === true) {
      reject(signal.reason);
      return promise;
    }
    const onAbort = (): void => {
      alarm.cancel();
      reject(signal?.reason);
    };
    const alarm = this.after(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    return promise;
  }
}
