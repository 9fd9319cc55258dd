/** What a heap orders: the heap keeps its place in `heapAt` (-1: not in the heap), so that it can be moved or removed. */
export interface HeapItem {
  /** Items with equal keys leave in this order. */
  readonly heapOrder: number;
  heapAt: number;
}

/** First capacity; it doubles when full. */
const FIRST_CAPACITY = 8;

/**
 * A binary min-heap of which any item can be removed or given another key in logarithmic time. Keys lie in a flat array:
 * comparing them touches no item.
 */
export class IndexedHeap<T extends HeapItem> {
  readonly items: T[] = [];
  #keys = new Float64Array(FIRST_CAPACITY);

  get first(): T | undefined {
    return this.items[0];
  }

  /** Infinity when it is empty. */
  get firstKey(): number {
    return this.items.length === 0 ? Number.POSITIVE_INFINITY : (this.#keys[0] as number);
  }

  get size(): number {
    return this.items.length;
  }

  /** The key of an item that is in the heap. */
  keyOf(item: T): number {
    return this.#keys[item.heapAt] as number;
  }

  add(item: T, key: number): void {
    const at = this.items.length;
    if (at === this.#keys.length) this.#grow();
    this.items[at] = item;
    this.#up(at, item, key);
  }

  /** Takes an item out, wherever it is; nothing when it is not in the heap. */
  remove(item: T): void {
    const at = item.heapAt;
    if (at < 0) return;
    item.heapAt = -1;
    const last = this.items.pop() as T;
    if (last === item) return;
    const key = this.#keys[this.items.length] as number;
    this.#up(at, last, key);
    this.#down(last.heapAt, last, key);
  }

  /** Gives an item another key; adds it when it is not in the heap. */
  update(item: T, key: number): void {
    const at = item.heapAt;
    if (at < 0) this.add(item, key);
    else if (key < (this.#keys[at] as number)) this.#up(at, item, key);
    else this.#down(at, item, key);
  }

  #up(from: number, item: T, key: number): void {
    const { items } = this;
    const keys = this.#keys;
    let at = from;
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parentKey = keys[parentAt] as number;
      if (key > parentKey) break;
      const parent = items[parentAt] as T;
      if (key === parentKey && item.heapOrder > parent.heapOrder) break;
      items[at] = parent;
      keys[at] = parentKey;
      parent.heapAt = at;
      at = parentAt;
    }
    items[at] = item;
    keys[at] = key;
    item.heapAt = at;
  }

  #down(from: number, item: T, key: number): void {
    const { items } = this;
    const { length } = items;
    const keys = this.#keys;
    let at = from;
    for (;;) {
      let childAt = 2 * at + 1;
      if (childAt >= length) break;
      if (childAt + 1 < length && this.#isBefore(childAt + 1, childAt)) childAt += 1;
      const childKey = keys[childAt] as number;
      if (childKey > key) break;
      const child = items[childAt] as T;
      if (childKey === key && child.heapOrder > item.heapOrder) break;
      items[at] = child;
      keys[at] = childKey;
      child.heapAt = at;
      at = childAt;
    }
    items[at] = item;
    keys[at] = key;
    item.heapAt = at;
  }

  #isBefore(a: number, b: number): boolean {
    const keyA = this.#keys[a] as number;
    const keyB = this.#keys[b] as number;
    if (keyA !== keyB) return keyA < keyB;
    return (this.items[a] as T).heapOrder < (this.items[b] as T).heapOrder;
  }

  #grow(): void {
    const keys = new Float64Array(2 * this.#keys.length);
    keys.set(this.#keys);
    this.#keys = keys;
  }
}
