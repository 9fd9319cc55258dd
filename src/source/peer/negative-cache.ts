import type { Clock } from '../../clock.ts';

/** Keys that nobody had a moment ago. */
export interface NegativeCache {
  has(key: Uint8Array): boolean;
  add(key: Uint8Array): void;
}

/**
 * How long "nobody has it" holds. A new record is in place some 300 ms after its chunk came, whatever the number of
 * nodes, so a second of not knowing costs at most that much of what a neighbour could give; it saves the question for
 * every further read of the same chunk, which come within milliseconds.
 */
const FOR_MS = 1_000;
/** Keys kept, about 150 bytes each. */
const KEYS_MAX = 20_000;

/** Nothing is unknown yet. */
export function createNegativeCache(components: { clock: Pick<Clock, 'nowMs'> }): NegativeCache {
  const { clock } = components;
  const until = new Map<string, number>();
  const nameOf = (key: Uint8Array): string =>
    Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1');
  return {
    has(key) {
      const name = nameOf(key);
      const endMs = until.get(name);
      if (endMs === undefined) return false;
      if (endMs > clock.nowMs()) return true;
      until.delete(name);
      return false;
    },
    add(key) {
      for (const oldest of until.keys()) {
        if (until.size < KEYS_MAX) break;
        until.delete(oldest);
      }
      until.set(nameOf(key), clock.nowMs() + FOR_MS);
    },
  };
}
