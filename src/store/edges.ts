import { ShoalError } from '../errors.ts';

/** Where large files begin and end on a device, in blocks, as bytes: u32 each, little-endian, ascending. */
export function encodeEdges(edges: Uint32Array): Uint8Array {
  const bytes = new Uint8Array(4 * edges.length);
  const view = new DataView(bytes.buffer);
  for (const [index, edge] of edges.entries()) view.setUint32(4 * index, edge, true);
  return bytes;
}

/** The edges for a device of `blocks` blocks. Throws STATE_CORRUPT for what `encodeEdges` cannot have made. */
export function decodeEdges(bytes: Uint8Array, blocks: number): Uint32Array {
  const bad = (why: string): ShoalError => new ShoalError('STATE_CORRUPT', `the edges of files ${why}`);
  if (bytes.byteLength % 4 !== 0) throw bad(`have ${bytes.byteLength} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const edges = Uint32Array.from({ length: bytes.byteLength / 4 }, (_, index) => view.getUint32(4 * index, true));
  for (const [index, edge] of edges.entries()) {
    if (edge > blocks || (index > 0 && edge <= (edges[index - 1] as number))) throw bad(`name block ${edge}`);
  }
  return edges;
}
