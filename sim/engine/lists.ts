/** Adds an item to a list that most often has one: an array that begins with its first item has room for no more. */
export function appended<T>(list: T[], item: T): T[] {
  if (list.length === 0) return [item];
  list.push(item);
  return list;
}

/** Takes an item out of a short list and keeps the order of the others; false when it is not in it. */
export function removeFrom<T>(list: T[], item: T): boolean {
  const at = list.indexOf(item);
  if (at === -1) return false;
  const last = list.length - 1;
  for (let next = at; next < last; next += 1) list[next] = list[next + 1] as T;
  list.length = last;
  return true;
}

/** Something in a bag: it knows its place there (-1: it is in none). */
export interface Bagged {
  bagAt: number;
}

/** Items in no order, each taken out as fast as it was put in. */
export class Bag<T extends Bagged> {
  /** The first `size`; never shortened, which would allocate it anew. */
  readonly #items: (T | undefined)[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(item: T): void {
    item.bagAt = this.#size;
    this.#items[this.#size] = item;
    this.#size += 1;
  }

  /** False when it is not in the bag. */
  remove(item: T): boolean {
    const at = item.bagAt;
    if (at < 0 || this.#items[at] !== item) return false;
    item.bagAt = -1;
    this.#size -= 1;
    const last = this.#items[this.#size] as T;
    this.#items[this.#size] = undefined;
    if (last === item) return true;
    this.#items[at] = last;
    last.bagAt = at;
    return true;
  }

  /** All of them, as they are now. */
  items(): T[] {
    return this.#items.slice(0, this.#size) as T[];
  }

  clear(): void {
    for (const item of this.items()) this.remove(item);
  }
}
