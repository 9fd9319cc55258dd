/** What a heap orders: the heap keeps its place in `heapAt` (-1: not in the heap), so that it can be moved or removed. */
export interface HeapItem {
  /** Smaller leaves first; equal keys leave in the order of `heapOrder`. */
  heapKey: number;
  readonly heapOrder: number;
  heapAt: number;
}

/** A binary min-heap of which any item can be removed or given another key in logarithmic time. */
export class IndexedHeap<T extends HeapItem> {
  readonly items: T[] = [];

  get first(): T | undefined {
    return this.items[0];
  }

  get size(): number {
    return this.items.length;
  }

  add(item: T): void {
    item.heapAt = this.items.length;
    this.items.push(item);
    this.#up(item);
  }

  /** Takes an item out, wherever it is; nothing when it is not in the heap. */
  remove(item: T): void {
    const at = item.heapAt;
    if (at < 0) return;
    item.heapAt = -1;
    const last = this.items.pop() as T;
    if (last === item) return;
    this.items[at] = last;
    last.heapAt = at;
    this.#up(last);
    this.#down(last);
  }

  /** Gives an item another key; adds it when it is not in the heap. */
  update(item: T, key: number): void {
    const former = item.heapKey;
    item.heapKey = key;
    if (item.heapAt < 0) this.add(item);
    else if (key < former) this.#up(item);
    else this.#down(item);
  }

  #up(item: T): void {
    const { items } = this;
    let at = item.heapAt;
    while (at > 0) {
      const parentAt = (at - 1) >> 1;
      const parent = items[parentAt] as T;
      if (!before(item, parent)) break;
      items[at] = parent;
      parent.heapAt = at;
      at = parentAt;
    }
    items[at] = item;
    item.heapAt = at;
  }

  #down(item: T): void {
    const { items } = this;
    const { length } = items;
    let at = item.heapAt;
    for (;;) {
      let childAt = 2 * at + 1;
      if (childAt >= length) break;
      let child = items[childAt] as T;
      const right = childAt + 1 < length ? (items[childAt + 1] as T) : undefined;
      if (right !== undefined && before(right, child)) {
        child = right;
        childAt += 1;
      }
      if (!before(child, item)) break;
      items[at] = child;
      child.heapAt = at;
      at = childAt;
    }
    items[at] = item;
    item.heapAt = at;
  }
}

function before(a: HeapItem, b: HeapItem): boolean {
  return a.heapKey < b.heapKey || (a.heapKey === b.heapKey && a.heapOrder < b.heapOrder);
}
