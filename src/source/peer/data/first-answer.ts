/** One way to get what is wanted; its signal fires when another way was faster, or nobody waits any more. */
export type Attempt<T> = (signal: AbortSignal) => Promise<T>;

/** How to go through several attempts. */
export interface RaceInit<T> {
  readonly signal: AbortSignal;
  /** The next attempt, or undefined; `hedge`: the one under way is slow, else the last one failed or there was none. */
  next(hedge: boolean): Promise<Attempt<T> | undefined>;
  /** How long the attempt under way is given before a second may start beside it, ms; undefined: as long as it takes. */
  hedgeAfterMs(): number | undefined;
  /** All attempts together, ms; then it is as if they had failed. */
  readonly withinMs?: number;
}

/** Attempts side by side: more would only add load. */
const MOST = 2;

/**
 * The first attempt that succeeds; the others are aborted. A failed attempt is followed by the next at once, a slow one
 * gets company. Resolves with undefined when all failed or there was none; rejects with the signal's reason only.
 */
export function firstAnswer<T>(init: RaceInit<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => new Race(init, resolve, reject).begin());
}

class Race<T> {
  readonly #init: RaceInit<T>;
  readonly #resolve: (value: T | undefined) => void;
  readonly #reject: (error: unknown) => void;
  readonly #running = new Set<AbortController>();
  readonly #onAbort = (): void => this.#end(() => this.#reject(this.#init.signal.reason));
  #timer: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;
  #asking = false;
  #over = false;

  constructor(init: RaceInit<T>, resolve: (value: T | undefined) => void, reject: (error: unknown) => void) {
    this.#init = init;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(): void {
    const { signal, withinMs } = this.#init;
    if (signal.aborted) {
      this.#reject(signal.reason);
      return;
    }
    signal.addEventListener('abort', this.#onAbort, { once: true });
    if (withinMs !== undefined) this.#deadline = setTimeout(() => this.#end(() => this.#resolve(undefined)), withinMs);
    this.#ask(false);
  }

  #ask(hedge: boolean): void {
    if (this.#asking || this.#over) return;
    this.#asking = true;
    this.#init.next(hedge).then(
      (attempt) => this.#answered(attempt, hedge),
      () => this.#answered(undefined, hedge),
    );
  }

  #answered(attempt: Attempt<T> | undefined, hedge: boolean): void {
    this.#asking = false;
    if (this.#over) return;
    if (attempt !== undefined) this.#start(attempt);
    else if (this.#running.size > 0) this.#arm();
    // What was running failed while the hedge was looked for: it may be replaced after all.
    else if (hedge) this.#ask(false);
    else this.#end(() => this.#resolve(undefined));
  }

  #start(attempt: Attempt<T>): void {
    const controller = new AbortController();
    this.#running.add(controller);
    attempt(controller.signal).then(
      (value) => {
        this.#running.delete(controller);
        this.#end(() => this.#resolve(value));
      },
      () => {
        this.#running.delete(controller);
        if (!this.#over && this.#running.size === 0) this.#ask(false);
      },
    );
    this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#running.size === 0 || this.#running.size >= MOST) return;
    const afterMs = this.#init.hedgeAfterMs();
    if (afterMs !== undefined) this.#timer = setTimeout(() => this.#ask(true), Math.max(1, afterMs));
  }

  #end(settle: () => void): void {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#deadline);
    this.#init.signal.removeEventListener('abort', this.#onAbort);
    settle();
    if (this.#running.size === 0) return;
    const reason = new DOMException('answered by another source', 'AbortError');
    for (const controller of this.#running) controller.abort(reason);
  }
}
