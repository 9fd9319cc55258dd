import { type Placed, TimerHeap } from './timer-heap.ts';

/** Something in a queue of timers: it knows where it is, so that it can be taken out. */
export interface Queued extends Placed {
  /** The later millisecond it waits in; undefined when it is due soon, or not in the queue. */
  bucket: Bucket<Queued> | undefined;
}

/** Timers of one millisecond that is not near yet, in no order. */
class Bucket<T> implements Placed {
  at = -1;
  key = 0;
  size = 0;
  readonly items: (T | undefined)[] = [];
  times = new Float64Array(64);
  orders = new Float64Array(64);

  grow(): void {
    const times = new Float64Array(2 * this.times.length);
    times.set(this.times);
    this.times = times;
    const orders = new Float64Array(2 * this.orders.length);
    orders.set(this.orders);
    this.orders = orders;
  }
}

export type { Bucket };

/**
 * Timers by time, then by order of adding. Only those of the nearest millisecond are kept sorted: a heap of them stays in
 * the processor's cache. The others, most of which are cancelled long before, wait in one unordered list a millisecond.
 */
export class TimerQueue<T extends Queued> {
  readonly #near = new TimerHeap<T>();
  /** What is due before this is in `near`. */
  #nearEndMs = 0;
  readonly #buckets = new Map<number, Bucket<T>>();
  readonly #far = new TimerHeap<Bucket<T>>();
  #order = 0;
  /** Emptied ones, to be used again. */
  readonly #spare: Bucket<T>[] = [];

  /** Infinity when it is empty. */
  get firstMs(): number {
    if (this.#near.size === 0) this.#advance();
    return this.#near.firstMs;
  }

  add(item: T, atMs: number): void {
    this.#order += 1;
    if (atMs < this.#nearEndMs) {
      this.#near.add(item, atMs, this.#order);
      return;
    }
    const key = Math.floor(atMs);
    let bucket = this.#buckets.get(key);
    if (bucket === undefined) {
      bucket = this.#spare.pop() ?? new Bucket<T>();
      bucket.key = key;
      this.#buckets.set(key, bucket);
      this.#far.add(bucket, key, key);
    }
    item.bucket = bucket as Bucket<Queued>;
    const at = bucket.size;
    if (at === bucket.times.length) bucket.grow();
    item.at = at;
    bucket.items[at] = item;
    bucket.times[at] = atMs;
    bucket.orders[at] = this.#order;
    bucket.size = at + 1;
  }

  /** Takes the first out; the queue must not be empty. */
  take(): T {
    if (this.#near.size === 0) this.#advance();
    return this.#near.take();
  }

  /** Takes an item out, wherever it is; nothing when it is not in the queue. */
  remove(item: T): void {
    const { bucket, at } = item;
    if (bucket === undefined) {
      this.#near.remove(item);
      return;
    }
    item.bucket = undefined;
    item.at = -1;
    bucket.size -= 1;
    const end = bucket.size;
    const last = bucket.items[end] as Queued;
    bucket.items[end] = undefined;
    if (last === item) return;
    bucket.items[at] = last;
    bucket.times[at] = bucket.times[end] as number;
    bucket.orders[at] = bucket.orders[end] as number;
    last.at = at;
  }

  /** Sorts the next millisecond in which something is due. */
  #advance(): void {
    while (this.#near.size === 0 && this.#far.size > 0) {
      const bucket = this.#far.take();
      const { key, items, times, orders, size } = bucket;
      this.#buckets.delete(key);
      this.#nearEndMs = key + 1;
      for (let at = 0; at < size; at += 1) {
        const item = items[at] as T;
        items[at] = undefined;
        item.bucket = undefined;
        this.#near.add(item, times[at] as number, orders[at] as number);
      }
      bucket.size = 0;
      this.#spare.push(bucket);
    }
  }
}
