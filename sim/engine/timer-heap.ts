/** Something in a heap of timers: it knows its place, so that it can be taken out. */
export interface Placed {
  /** -1: not in the heap. */
  at: number;
}

/** First capacity; it doubles when full. */
const FIRST_CAPACITY = 1_024;
/** Children of a node: a flat heap touches less memory than a deep one. */
const ARITY = 4;

/** A min-heap by time, then by order of adding, with its keys in flat arrays: timers are most of what a simulation does. */
export class TimerHeap<T extends Placed> {
  #times = new Float64Array(FIRST_CAPACITY);
  #orders = new Float64Array(FIRST_CAPACITY);
  readonly #items: T[] = [];
  #order = 0;

  get size(): number {
    return this.#items.length;
  }

  /** Infinity when it is empty. */
  get firstMs(): number {
    return this.#items.length === 0 ? Number.POSITIVE_INFINITY : (this.#times[0] as number);
  }

  add(item: T, atMs: number): void {
    const at = this.#items.length;
    if (at === this.#times.length) this.#grow();
    this.#order += 1;
    this.#items.push(item);
    this.#up(at, item, atMs, this.#order);
  }

  /** Takes the first out; the heap must not be empty. */
  take(): T {
    const first = this.#items[0] as T;
    this.remove(first);
    return first;
  }

  /** Takes an item out, wherever it is; nothing when it is not in the heap. */
  remove(item: T): void {
    const { at } = item;
    if (at < 0) return;
    item.at = -1;
    const last = this.#items.pop() as T;
    const end = this.#items.length;
    if (last === item) return;
    const atMs = this.#times[end] as number;
    const order = this.#orders[end] as number;
    if (at > 0 && this.#isBefore(atMs, order, Math.floor((at - 1) / ARITY))) this.#up(at, last, atMs, order);
    else this.#down(at, last, atMs, order);
  }

  #isBefore(atMs: number, order: number, other: number): boolean {
    const otherMs = this.#times[other] as number;
    return atMs < otherMs || (atMs === otherMs && order < (this.#orders[other] as number));
  }

  #put(at: number, item: T, atMs: number, order: number): void {
    this.#times[at] = atMs;
    this.#orders[at] = order;
    this.#items[at] = item;
    item.at = at;
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#items[from] as T, this.#times[from] as number, this.#orders[from] as number);
  }

  #up(from: number, item: T, atMs: number, order: number): void {
    let at = from;
    while (at > 0) {
      const parent = Math.floor((at - 1) / ARITY);
      if (!this.#isBefore(atMs, order, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#put(at, item, atMs, order);
  }

  #down(from: number, item: T, atMs: number, order: number): void {
    const { length } = this.#items;
    let at = from;
    for (;;) {
      const first = ARITY * at + 1;
      if (first >= length) break;
      let best = first;
      const end = Math.min(first + ARITY, length);
      for (let child = first + 1; child < end; child += 1) {
        if (this.#isBefore(this.#times[child] as number, this.#orders[child] as number, best)) best = child;
      }
      if (this.#isBefore(atMs, order, best)) break;
      this.#move(best, at);
      at = best;
    }
    this.#put(at, item, atMs, order);
  }

  #grow(): void {
    const times = new Float64Array(2 * this.#times.length);
    const orders = new Float64Array(times.length);
    times.set(this.#times);
    orders.set(this.#orders);
    this.#times = times;
    this.#orders = orders;
  }
}
