/** Work that needs memory; asked anew each time there may be room for it. */
export interface Claim {
  /** Somebody waits for it: goes before those for which nobody does. */
  readonly urgent: boolean;
  /** Starts what needs at most `room` bytes and tells how many: 0 when nothing is left to do, undefined when it needs more. */
  start(room: number): number | undefined;
}

/** Bytes of memory that several users share: who finds none left waits, urgent claims first, then in the order asked. */
export interface ByteBudget {
  /** Bytes in use. */
  readonly taken: number;
  /** Queues the claim, which leaves once it has started something; call again for more, or when its needs changed. */
  ask(claim: Claim): void;
  /** Returns bytes that a claim took. */
  giveBack(bytes: number): void;
  /** Runs `work` when there is room for its bytes (`urgent` may become true meanwhile); rejects with the signal's reason when that fires before. */
  use<T>(bytes: number, options: { signal: AbortSignal; urgent?: boolean }, work: () => Promise<T>): Promise<T>;
}

/**
 * A budget of `most` bytes, of which `keptForUrgent` are out of reach for claims that are not urgent. What needs more
 * than there is goes alone. A claim that does not fit holds up those behind it, or it would never fit.
 */
export function createByteBudget(most: number, { keptForUrgent = 0 } = {}): ByteBudget {
  return new QueuedBudget(most, keptForUrgent);
}

class QueuedBudget implements ByteBudget {
  readonly #most: number;
  readonly #keptForUrgent: number;
  readonly #queue = new Set<Claim>();
  #taken = 0;
  #serving = false;

  constructor(most: number, keptForUrgent: number) {
    this.#most = most;
    this.#keptForUrgent = keptForUrgent;
  }

  get taken(): number {
    return this.#taken;
  }

  ask(claim: Claim): void {
    this.#queue.add(claim);
    this.#serve();
  }

  giveBack(bytes: number): void {
    this.#taken -= bytes;
    this.#serve();
  }

  async use<T>(
    bytes: number,
    options: { readonly signal: AbortSignal; readonly urgent?: boolean },
    work: () => Promise<T>,
  ): Promise<T> {
    await this.#take(bytes, options);
    try {
      return await work();
    } finally {
      this.giveBack(bytes);
    }
  }

  #take(bytes: number, options: { readonly signal: AbortSignal; readonly urgent?: boolean }): Promise<void> {
    const { signal } = options;
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        reject(signal.reason);
        this.#queue.delete(claim);
        // It may have been what the others wait behind.
        this.#serve();
      };
      const start = (room: number): number | undefined => {
        if (bytes > room) return undefined;
        signal.removeEventListener('abort', onAbort);
        resolve();
        return bytes;
      };
      const claim: Claim = {
        get urgent() {
          return options.urgent ?? true;
        },
        start,
      };
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      this.ask(claim);
    });
  }

  #serve(): void {
    // A claim that starts may ask, or give back, at once.
    if (this.#serving) return;
    this.#serving = true;
    try {
      for (let claim = this.#first(); claim !== undefined; claim = this.#first()) {
        const bytes = claim.start(this.#room(claim));
        if (bytes === undefined) break;
        this.#queue.delete(claim);
        this.#taken += bytes;
      }
    } finally {
      this.#serving = false;
    }
  }

  #first(): Claim | undefined {
    for (const claim of this.#queue) if (claim.urgent) return claim;
    for (const claim of this.#queue) return claim;
    return undefined;
  }

  #room({ urgent }: Claim): number {
    if (this.#taken === 0) return Number.POSITIVE_INFINITY;
    return this.#most - (urgent ? 0 : this.#keptForUrgent) - this.#taken;
  }
}
