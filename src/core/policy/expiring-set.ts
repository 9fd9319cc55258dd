/** Keys that are believed for a while, e.g. chunks that nobody had a moment ago. Bounded: the oldest goes first. */
export interface ExpiringSet<Key = string> {
  add(key: Key, nowMs: number): void;
  has(key: Key, nowMs: number): boolean;
  delete(key: Key): void;
  readonly size: number;
}

/** Each key lives `forMs` ms after it was added last; at most `most` keys. */
export function createExpiringSet<Key = string>({ forMs, most }: { forMs: number; most: number }): ExpiringSet<Key> {
  /** Key → when it ends; all live equally long, so the order of insertion is the order of ending. */
  const ends = new Map<Key, number>();
  return {
    add(key, nowMs) {
      ends.delete(key);
      ends.set(key, nowMs + forMs);
      for (const [oldest, end] of ends) {
        if (end > nowMs && ends.size <= most) break;
        ends.delete(oldest);
      }
    },
    has(key, nowMs) {
      const end = ends.get(key);
      if (end === undefined || end > nowMs) return end !== undefined;
      ends.delete(key);
      return false;
    },
    delete(key) {
      ends.delete(key);
    },
    get size() {
      return ends.size;
    },
  };
}
