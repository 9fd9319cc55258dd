import { restOrder } from '../../../src/core/policy/prefetch-order.ts';
import type { ByteRange } from '../../../src/core/policy/readahead.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';

/** What a start reads of one layer, as if nothing else lay between: chunk positions and where each begins. */
export interface Marked {
  readonly positions: readonly number[];
  readonly starts: readonly number[];
  readonly bytes: number;
}

/** The marked part of each layer of an image. */
export function markedOf(image: SimImage): readonly Marked[] {
  const marked = image.files.flat().sort((a, b) => a - b);
  return image.layers.map(({ first, end }) => {
    const positions = marked.filter((at) => at >= first && at < end);
    return partOf(image, [...new Set(positions)]);
  });
}

/** All of each layer. */
export function layersOf(image: SimImage): readonly Marked[] {
  return image.layers.map((layer) => wholeOf(image, layer));
}

function partOf(image: SimImage, positions: readonly number[]): Marked {
  const starts: number[] = [];
  let bytes = 0;
  for (const at of positions) {
    starts.push(bytes);
    bytes += (image.chunks[at] as SimImage['chunks'][number]).bytes;
  }
  return { positions, starts, bytes };
}

/** Where in `positions` the chunk is. */
export function placeIn({ positions }: Marked, at: number): number {
  return lowerBound(positions, at);
}

/** Positions of the chunks that begin in this range. */
export function chunksIn({ positions, starts }: Marked, { offset, length }: ByteRange): number[] {
  const found: number[] = [];
  const end = offset + length;
  for (let at = lowerBound(starts, offset); at < starts.length && (starts[at] as number) < end; at += 1) {
    found.push(positions[at] as number);
  }
  return found;
}

/** The first place of a value of at least `least` in a sorted list. */
function lowerBound(values: readonly number[], least: number): number {
  let first = 0;
  let last = values.length;
  while (first < last) {
    const middle = (first + last) >>> 1;
    if ((values[middle] as number) < least) first = middle + 1;
    else last = middle;
  }
  return first;
}

/** The chunks of a layer in the order in which the daemon's policy fetches what nobody waits for: each node in another. */
export function inOwnOrder(node: string, image: SimImage, layer: SimLayer): number[] {
  const part = wholeOf(image, layer);
  const seed = `${node}/${image.name}/${layer.index}`;
  const runs = restOrder({ deviceSize: part.bytes, hintBytes: 0, recorded: [], seed });
  return [...runs].flatMap((run) => chunksIn(part, run));
}

function wholeOf(image: SimImage, { first, end }: SimLayer): Marked {
  return partOf(
    image,
    Array.from({ length: end - first }, (_, at) => first + at),
  );
}
