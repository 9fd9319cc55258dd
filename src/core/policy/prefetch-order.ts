import type { ByteRange } from './readahead.ts';

/** What is known of a layer that is to be fetched before it is asked for. */
export interface PrefetchPlan {
  readonly deviceSize: number;
  /** Leading bytes that the image marks as needed at start. */
  readonly hintBytes: number;
  /** What its first start here read, in that order. */
  readonly recorded: readonly ByteRange[];
  /** Names this node and this layer: another seed gives the rest in another order. */
  readonly seed: string;
  /**
   * Other nodes may start the same image at this moment: then the start's part, too, comes in an order of the seed's
   * (start-pool.ts), so that each node is the first to have some of it. In one order for all, the node that is ahead sends
   * everything to everybody (docs/studies/flash-crowd.md).
   */
  readonly isShared?: boolean;
  /** Length of a piece of the rest, bytes. */
  readonly runBytes?: number;
}

/**
 * Length of a piece, bytes: enough for one coalesced request at a time, little enough that a layer of some hundred
 * megabytes has pieces for many neighbours. All nodes cut at the same places, so that a piece is fetched by one of them.
 */
export const PREFETCH_RUN_BYTES = 4 * 1024 * 1024;

/** What a start is likely to read: what the image marks, then what an earlier start read, cut into pieces. */
export function* startOrder(plan: PrefetchPlan): Generator<ByteRange> {
  const { deviceSize, hintBytes, recorded, runBytes = PREFETCH_RUN_BYTES } = plan;
  const hinted = Math.min(hintBytes, deviceSize);
  yield* pieces(0, hinted, runBytes);
  for (const { offset, length } of recorded) {
    const first = Math.max(offset, hinted);
    yield* pieces(first, Math.min(offset + length, deviceSize), runBytes);
  }
}

/**
 * Every piece of the layer once, in an order of the seed's: nodes that fetch the same layer at the same time begin in
 * different places, and each finds at its neighbours what they fetched meanwhile.
 */
export function* restOrder(plan: PrefetchPlan): Generator<ByteRange> {
  const { deviceSize, seed, runBytes = PREFETCH_RUN_BYTES } = plan;
  const count = Math.ceil(deviceSize / runBytes);
  const order = shuffled(
    Uint32Array.from({ length: count }, (_, index) => index),
    seed,
  );
  for (const index of order) {
    const offset = index * runBytes;
    yield { offset, length: Math.min(runBytes, deviceSize - offset) };
  }
}

function* pieces(first: number, end: number, runBytes: number): Generator<ByteRange> {
  for (let offset = first; offset < end; offset += runBytes) yield { offset, length: Math.min(runBytes, end - offset) };
}

/** In place, as the seed has it. */
function shuffled<T extends { readonly length: number; [index: number]: U }, U>(items: T, seed: string): T {
  const next = seededNumbers(seed);
  for (let last = items.length - 1; last > 0; last -= 1) {
    const other = next() % (last + 1);
    const moved = items[last] as U;
    items[last] = items[other] as U;
    items[other] = moved;
  }
  return items;
}

/** Numbers below 2^32 that depend on the text only: FNV-1a for the start, then a 32-bit mix of a counter. */
export function seededNumbers(seed: string): () => number {
  let state = 0x811c9dc5;
  for (let at = 0; at < seed.length; at += 1) state = Math.imul(state ^ seed.charCodeAt(at), 0x01000193);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  };
}
