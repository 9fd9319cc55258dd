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
 * A shared start takes its first piece from so many, the same on all nodes, …: the registry sends all that are asked for
 * side by side, so that of few the first copies are there soon, and nodes can begin to send. Of 64 pieces at once the
 * first came after half of the time that all took.
 */
const FIRST_PIECES = 16;
/** … and from so many more with each piece: a choice that stayed small would let those who are ahead send everything. */
const MORE_PIECES = 6;

/**
 * An empty pool. Layer after layer, unless the start is shared (`PrefetchPlan.isShared`): then a node takes its pieces at
 * random, of all layers, from a beginning that is the same on all nodes and grows as it goes on. Each node is then the
 * first to have some pieces of every layer, and sends those; in one order, all wait for who has the first one
 * (docs/studies/flash-crowd.md).
 */
export function createStartPool<T>(): StartPool<T> {
  /** In order of being added. */
  let queue: { readonly layer: T; readonly runs: Iterator<ByteRange> }[] = [];
  /** The beginnings of all layers first. */
  let shared: RankedPiece<T>[] = [];
  let random: (() => number) | undefined;
  let taken = 0;

  function nextShared(): StartPiece<T> | undefined {
    if (random === undefined || shared.length === 0) return undefined;
    const choice = Math.min(shared.length, FIRST_PIECES + MORE_PIECES * taken);
    taken += 1;
    return shared.splice(random() % choice, 1)[0];
  }

  return {
    add(layer, plan) {
      const runs = startOrder(plan);
      if (plan.isShared !== true) {
        queue.push({ layer, runs: runs[Symbol.iterator]() });
        return;
      }
      random ??= seededNumbers(`${plan.seed} start`);
      let rank = 0;
      for (const run of runs) {
        shared.push({ layer, run, rank });
        rank += 1;
      }
      shared.sort((a, b) => a.rank - b.rank);
    },
    next() {
      const piece = nextShared();
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
      shared = shared.filter((each) => each.layer !== layer);
    },
  };
}
