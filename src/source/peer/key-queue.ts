import { KEY_BYTES } from './chunk-key.ts';

/** Chunk keys, packed, first in first out; bounded. */
export interface KeyQueue {
  /** False when the queue is full and the key was not taken. */
  push(key: Uint8Array): boolean;
  /** Up to `most` keys, packed, taken out. */
  take(most: number): Uint8Array;
  readonly size: number;
}

/** Keys per piece: what one slice of work takes. */
const PIECE_KEYS = 1_024;

/** An empty queue of at most `most` keys. */
export function createKeyQueue(most: number): KeyQueue {
  const pieces: Uint8Array[] = [];
  let first = 0;
  let last = PIECE_KEYS;
  let size = 0;
  return {
    get size() {
      return size;
    },
    push(key) {
      if (size >= most) return false;
      if (last === PIECE_KEYS) {
        pieces.push(new Uint8Array(PIECE_KEYS * KEY_BYTES));
        last = 0;
      }
      (pieces.at(-1) as Uint8Array).set(key, last * KEY_BYTES);
      last += 1;
      size += 1;
      return true;
    },
    take(wanted) {
      const piece = pieces[0];
      if (piece === undefined) return new Uint8Array(0);
      const end = pieces.length === 1 ? last : PIECE_KEYS;
      const count = Math.min(wanted, end - first);
      const keys = piece.slice(first * KEY_BYTES, (first + count) * KEY_BYTES);
      first += count;
      size -= count;
      if (first === end) {
        pieces.shift();
        first = 0;
        if (pieces.length === 0) last = PIECE_KEYS;
      }
      return keys;
    },
  };
}
