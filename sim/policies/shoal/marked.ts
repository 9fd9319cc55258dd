import { restOrder } from '../../../src/core/policy/prefetch-order.ts';
import type { ByteRange } from '../../../src/core/policy/readahead.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';

/** What a start reads of one layer, as if nothing else lay between: chunk positions and where each begins. */
export interface Marked {
  readonly positions: readonly number[];
  readonly starts: readonly number[];
  readonly bytes: number;
}

const markedParts = new WeakMap<SimImage, readonly Marked[]>();

/** The marked part of each layer of an image. */
export function markedOf(image: SimImage): readonly Marked[] {
  const known = markedParts.get(image);
  if (known !== undefined) return known;
  const marked = image.files.flat().sort((a, b) => a - b);
  const parts = image.layers.map(({ first, end }) =>
    partOf(
      image,
      marked.filter((at) => at >= first && at < end),
    ),
  );
  markedParts.set(image, parts);
  return parts;
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

/** Positions of the chunks that begin in this range. */
export function chunksIn({ positions, starts }: Marked, { offset, length }: ByteRange): number[] {
  let first = 0;
  let last = starts.length;
  while (first < last) {
    const middle = (first + last) >>> 1;
    if ((starts[middle] as number) < offset) first = middle + 1;
    else last = middle;
  }
  const found: number[] = [];
  for (let at = first; at < starts.length && (starts[at] as number) < offset + length; at += 1) {
    found.push(positions[at] as number);
  }
  return found;
}

/** The chunks of a layer in the order in which the daemon's policy fetches what nobody waits for: each node in another. */
export function inOwnOrder(node: string, image: SimImage, { first, end, index }: SimLayer): number[] {
  const part = partOf(
    image,
    Array.from({ length: end - first }, (_, at) => first + at),
  );
  const seed = `${node}/${image.name}/${index}`;
  const runs = restOrder({ deviceSize: part.bytes, hintBytes: 0, recorded: [], seed });
  return [...runs].flatMap((run) => chunksIn(part, run));
}
