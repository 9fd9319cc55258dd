import type { GetOptions, Urgency } from './chunk-store.ts';

/** Work that several callers wait for: it goes on while one of them is left, and is as urgent as the most urgent. */
export interface Flight<T> {
  /** Settles with the work; never an unhandled rejection. */
  readonly promise: Promise<T>;
  /** More than one caller ever waited: none has the result for itself. */
  readonly shared: boolean;
  /** One more caller waits. */
  hold(urgency: Urgency): void;
  /** Somebody who does not count as waiting would like it sooner. */
  hurry(): void;
  /** One caller gave up; with the last the work is aborted. */
  release(): void;
  /** `hold`, wait, and `release` when the caller's own signal fires first; rejects with that signal's reason. */
  join(options: GetOptions): Promise<T>;
  /** Aborts the work for everybody. */
  cancel(reason: unknown): void;
}

/**
 * Starts shared work. `ended` is called once, when the work settled or nobody waits any more: from then on a newcomer
 * must start its own. The options `work` receives have a signal of their own and a live `urgency`.
 */
export function startFlight<T>(
  work: (options: GetOptions) => Promise<T>,
  ended: () => void,
  report?: GetOptions['report'],
): Flight<T> {
  return new SharedFlight(work, ended, report);
}

class SharedFlight<T> implements Flight<T>, GetOptions {
  readonly promise: Promise<T>;
  readonly report: NonNullable<GetOptions['report']>;
  readonly #controller = new AbortController();
  readonly #ended: () => void;
  #waiting = 0;
  #holders = 0;
  #over = false;
  #demanded = false;
  /** Callers that wait; each may become more urgent while it does. */
  readonly #joined = new Set<GetOptions>();

  constructor(work: (options: GetOptions) => Promise<T>, ended: () => void, report: GetOptions['report']) {
    this.#ended = ended;
    this.report = report ?? (() => {});
    // A turn later, so that the first caller's urgency is known when the work begins.
    this.promise = Promise.resolve().then(() => {
      this.signal.throwIfAborted();
      return work(this);
    });
    const end = (): void => this.#end();
    this.promise.then(end, end);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get shared(): boolean {
    return this.#holders > 1;
  }

  get urgency(): Urgency {
    if (!this.#demanded) for (const { urgency } of this.#joined) this.#demanded ||= urgency !== 'prefetch';
    return this.#demanded ? 'demand' : 'prefetch';
  }

  hold(urgency: Urgency): void {
    this.#waiting += 1;
    this.#holders += 1;
    if (urgency === 'demand') this.#demanded = true;
  }

  hurry(): void {
    this.#demanded = true;
  }

  release(): void {
    this.#waiting -= 1;
    if (this.#waiting <= 0) this.cancel(new DOMException('nobody waits for it any more', 'AbortError'));
  }

  cancel(reason: unknown): void {
    if (this.#over) return;
    this.#end();
    this.#controller.abort(reason);
  }

  join(options: GetOptions): Promise<T> {
    const { signal } = options;
    this.hold(options.urgency ?? 'demand');
    if (signal.aborted) {
      this.release();
      return Promise.reject(signal.reason);
    }
    this.#joined.add(options);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#joined.delete(options);
        this.release();
        reject(signal.reason);
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const done = (): void => {
        this.#joined.delete(options);
        signal.removeEventListener('abort', onAbort);
      };
      this.promise.then(
        (value) => {
          done();
          resolve(value);
        },
        (error) => {
          done();
          reject(error);
        },
      );
    });
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#ended();
  }
}

/** All flights done, or the first failure, or the signal's reason: then those not yet over lose one waiter. */
export function allOf(flights: readonly Flight<void>[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      for (const flight of flights) flight.release();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    Promise.all(flights.map((flight) => flight.promise)).then(
      () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      },
      (error) => {
        signal.removeEventListener('abort', onAbort);
        reject(error);
      },
    );
  });
}
