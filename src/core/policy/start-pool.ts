import { type PrefetchPlan, seededNumbers, startOrder } from './prefetch-order.ts';
import type { ByteRange } from './readahead.ts';

/** A piece to fetch. */
export interface StartPiece<T> {
  readonly layer: T;
  readonly run: ByteRange;
}

/** What a start is likely to read, of all layers that are being mounted, piece by piece. */
export interface StartPool<T> {
  add(layer: T, plan: PrefetchPlan): void;
  /** The next piece to fetch; undefined when none is left. */
  next(): StartPiece<T> | undefined;
  /** Forgets what is left of a layer. */
  drop(layer: T): void;
}

interface RankedPiece<T> extends StartPiece<T> {
  readonly rank: number;
}

/**
 * An empty pool. Layer after layer, unless the start is shared (`PrefetchPlan.isShared`): then the pieces of all layers
 * come in one order of the node's own. Each node is then the first to have some pieces of every layer, and sends those;
 * layer by layer, all wait for who has the first one (docs/studies/flash-crowd.md).
 */
export function createStartPool<T>(): StartPool<T> {
  /** In order of being added. */
  let queue: { readonly layer: T; readonly runs: Iterator<ByteRange> }[] = [];
  /** Highest rank first: the next is at the end. */
  let mixed: RankedPiece<T>[] = [];
  return {
    add(layer, plan) {
      const runs = startOrder(plan);
      if (plan.isShared !== true) {
        queue.push({ layer, runs: runs[Symbol.iterator]() });
        return;
      }
      const random = seededNumbers(`${plan.seed} start`);
      for (const run of runs) mixed.push({ layer, run, rank: random() });
      mixed.sort((a, b) => b.rank - a.rank);
    },
    next() {
      const piece = mixed.pop();
      if (piece !== undefined) return piece;
      for (let first = queue[0]; first !== undefined; first = queue[0]) {
        const run = first.runs.next();
        if (run.done !== true) return { layer: first.layer, run: run.value };
        queue.shift();
      }
      return undefined;
    },
    drop(layer) {
      queue = queue.filter((each) => each.layer !== layer);
      mixed = mixed.filter((each) => each.layer !== layer);
    },
  };
}
