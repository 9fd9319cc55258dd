/** Something in a heap of timers: it knows its slot, so that it can be taken out. */
export interface Placed {
  /** -1: not in the heap. */
  at: number;
}

/** First capacity; it doubles when full. */
const FIRST_CAPACITY = 1_024;
/** Children of a node: a flat heap touches less memory than a deep one. */
const ARITY = 4;

/**
 * A min-heap by time, then by a number of their own: timers are most of what a simulation does. Its keys are in flat
 * arrays, and it orders numbers of slots: moving them touches no timer, each of which would be far from the last in memory.
 */
export class TimerHeap<T extends Placed> {
  #times = new Float64Array(FIRST_CAPACITY);
  #orders = new Float64Array(FIRST_CAPACITY);
  /** Slot of each place of the heap; beyond `size`, slots that are free. */
  #slots = Int32Array.from({ length: FIRST_CAPACITY }, (_, slot) => slot);
  /** Place of each slot. */
  #places = new Int32Array(FIRST_CAPACITY);
  /** What is in each slot. */
  readonly #items: (T | undefined)[] = new Array<T | undefined>(FIRST_CAPACITY).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Infinity when it is empty. */
  get firstMs(): number {
    return this.#size === 0 ? Number.POSITIVE_INFINITY : (this.#times[0] as number);
  }

  add(item: T, atMs: number, order: number): void {
    const at = this.#size;
    if (at === this.#times.length) this.#grow();
    const slot = this.#slots[at] as number;
    this.#items[slot] = item;
    item.at = slot;
    this.#size = at + 1;
    this.#up(at, slot, atMs, order);
  }

  /** Takes the first out; the heap must not be empty. */
  take(): T {
    const first = this.#items[this.#slots[0] as number] as T;
    this.remove(first);
    return first;
  }

  /** Takes an item out, wherever it is; nothing when it is not in the heap. */
  remove(item: T): void {
    const slot = item.at;
    if (slot < 0) return;
    item.at = -1;
    this.#items[slot] = undefined;
    const at = this.#places[slot] as number;
    const end = this.#size - 1;
    this.#size = end;
    const last = this.#slots[end] as number;
    this.#slots[end] = slot;
    if (at === end) return;
    const atMs = this.#times[end] as number;
    const order = this.#orders[end] as number;
    if (at > 0 && this.#isBefore(atMs, order, ((at - 1) / ARITY) | 0)) this.#up(at, last, atMs, order);
    else this.#down(at, last, atMs, order);
  }

  #isBefore(atMs: number, order: number, other: number): boolean {
    const otherMs = this.#times[other] as number;
    return atMs < otherMs || (atMs === otherMs && order < (this.#orders[other] as number));
  }

  #put(at: number, slot: number, atMs: number, order: number): void {
    this.#times[at] = atMs;
    this.#orders[at] = order;
    this.#slots[at] = slot;
    this.#places[slot] = at;
  }

  #up(from: number, slot: number, atMs: number, order: number): void {
    let at = from;
    while (at > 0) {
      const parent = ((at - 1) / ARITY) | 0;
      if (!this.#isBefore(atMs, order, parent)) break;
      this.#put(at, this.#slots[parent] as number, this.#times[parent] as number, this.#orders[parent] as number);
      at = parent;
    }
    this.#put(at, slot, atMs, order);
  }

  #down(from: number, slot: number, atMs: number, order: number): void {
    const length = this.#size;
    const times = this.#times;
    let at = from;
    for (;;) {
      const first = ARITY * at + 1;
      if (first >= length) break;
      let best = first;
      let bestMs = times[first] as number;
      const end = Math.min(first + ARITY, length);
      for (let child = first + 1; child < end; child += 1) {
        const childMs = times[child] as number;
        if (childMs > bestMs) continue;
        if (childMs === bestMs && (this.#orders[child] as number) > (this.#orders[best] as number)) continue;
        best = child;
        bestMs = childMs;
      }
      if (this.#isBefore(atMs, order, best)) break;
      this.#put(at, this.#slots[best] as number, bestMs, this.#orders[best] as number);
      at = best;
    }
    this.#put(at, slot, atMs, order);
  }

  #grow(): void {
    const former = this.#times.length;
    const length = 2 * former;
    const wider = <A extends Float64Array | Int32Array>(array: A, held: A): A => {
      array.set(held);
      return array;
    };
    this.#times = wider(new Float64Array(length), this.#times);
    this.#orders = wider(new Float64Array(length), this.#orders);
    this.#slots = wider(new Int32Array(length), this.#slots);
    this.#places = wider(new Int32Array(length), this.#places);
    for (let slot = former; slot < length; slot += 1) {
      this.#slots[slot] = slot;
      this.#items.push(undefined);
    }
  }
}
