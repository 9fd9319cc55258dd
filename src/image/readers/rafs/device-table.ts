import { BLOCK_BYTES } from '../../../core/block-map.ts';
import type { ChunkTable, Codec } from '../../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../../core/chunk-table-builder.ts';
import { ShoalError } from '../../../errors.ts';
import { type BlobIndex, batchContext } from './blob-index.ts';
import { CHUNK, FEATURE, invalidRafs, type RafsBlob, type RafsChunks } from './model.ts';
import { ZranExtents } from './zran.ts';

/** The chunk table of a RAFS blob, and what its `deflate` extents need. */
export interface DeviceTable {
  readonly chunks: ChunkTable;
  readonly windows?: Uint8Array;
}

/**
 * The chunk table of one RAFS blob: from the blob's own verified index where that has digests, so that it is the same for
 * every image that uses the blob, else from what the bootstrap says of its chunks. Throws UNSUPPORTED_LAYER when nothing
 * gives digests, INVALID_CHUNK_TABLE or INVALID_LAYER.
 */
export function deviceTable(
  rafs: RafsBlob,
  sources: {
    readonly index: BlobIndex | undefined;
    readonly chunks: RafsChunks | undefined;
    readonly blobSize: number;
  },
): DeviceTable {
  const { index, chunks, blobSize } = sources;
  const builder = new ChunkTableBuilder({ compressedSize: blobSize, algorithm: rafs.algorithm });
  let rows: RafsChunks;
  if (index?.digests !== undefined) rows = { ...index.meta.chunks, digests: index.digests };
  else if (chunks !== undefined) rows = chunks;
  else if (index !== undefined && index.meta.chunks.count > 0) {
    throw new ShoalError('UNSUPPORTED_LAYER', `Nydus blob ${rafs.id.slice(0, 12)} has no chunk digests`);
  } else return { chunks: builder.build() };
  const zran = (rafs.features & FEATURE.zran) === 0 ? undefined : zranOf(index, blobSize);
  let before = -1;
  for (const row of inDeviceOrder(rows)) {
    if (before >= 0 && rows.deviceOffset[row] === rows.deviceOffset[before] && isRepeated(rows, before, row)) continue;
    before = row;
    const flags = rows.flags[row] as number;
    if ((flags & CHUNK.hole) !== 0) continue;
    if ((flags & CHUNK.encrypted) !== 0) {
      throw new ShoalError('UNSUPPORTED_LAYER', 'the chunks of a Nydus blob are encrypted');
    }
    const length = rows.length[row] as number;
    const extent = zran?.of(rows.index[row] as number, length) ?? extentOf(rafs, rows, row, index);
    const digest = rows.digests.subarray(32 * row, 32 * row + 32);
    builder.addRaw({ deviceOffset: rows.deviceOffset[row] as number, length, ...extent }, digest);
  }
  const windows = zran?.windows;
  return { chunks: builder.build(), ...(windows === undefined ? {} : { windows }) };
}

function zranOf(index: BlobIndex | undefined, blobSize: number): ZranExtents {
  if (index === undefined) throw invalidRafs('a blob of a tar.gz without an index');
  return new ZranExtents(index.meta, { blobSize });
}

interface ChunkExtent {
  readonly extentOffset: number;
  readonly extentLength: number;
  readonly codec: Codec;
  readonly innerOffset: number;
  readonly decodedLength?: number;
}

function extentOf(rafs: RafsBlob, rows: RafsChunks, row: number, index: BlobIndex | undefined): ChunkExtent {
  const flags = rows.flags[row] as number;
  const extentOffset = rows.codedOffset[row] as number;
  if ((flags & CHUNK.batch) === 0) {
    const codec = (flags & CHUNK.compressed) === 0 ? 'none' : rafs.codec;
    return { extentOffset, extentLength: rows.codedLength[row] as number, codec, innerOffset: 0 };
  }
  const number = rows.index[row] as number;
  const { meta } = index ?? {};
  if (meta?.contexts === undefined || number >= meta.context.length)
    throw invalidRafs(`chunk ${number} is in no batch`);
  const { length, decodedLength } = batchContext(meta.contexts, meta.context[number] as number);
  const codec = length === decodedLength ? 'none' : rafs.codec;
  return { extentOffset, extentLength: length, codec, innerOffset: meta.innerOffset[number] as number, decodedLength };
}

/** Row numbers by device offset; mostly that is the order they are in. */
function inDeviceOrder({ count, deviceOffset }: RafsChunks): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, row) => row);
  for (let row = 1; row < count; row += 1) {
    if ((deviceOffset[row] as number) < (deviceOffset[row - 1] as number)) {
      return order.sort((a, b) => (deviceOffset[a] as number) - (deviceOffset[b] as number) || a - b);
    }
  }
  return order;
}

/** The same chunk again, as a bootstrap lists it for each file that holds it. */
function isRepeated(rows: RafsChunks, a: number, b: number): boolean {
  const same = (column: Float64Array | Uint32Array): boolean => column[a] === column[b];
  return (
    same(rows.length) &&
    same(rows.codedOffset) &&
    same(rows.codedLength) &&
    Buffer.compare(rows.digests.subarray(32 * a, 32 * a + 32), rows.digests.subarray(32 * b, 32 * b + 32)) === 0
  );
}

/** True when every byte of [offset, offset + length) is some chunk's. */
export function coversExactly(table: ChunkTable, offset: number, length: number): boolean {
  if (offset % BLOCK_BYTES !== 0 || length <= 0) return false;
  const end = offset + length;
  let at = offset;
  const rows = table.covering(offset, length);
  for (let row = rows.first; row < rows.end && at < end; row += 1) {
    const chunk = table.row(row);
    if (chunk.deviceOffset > at) return false;
    at = chunk.deviceOffset + chunk.length;
  }
  return at >= end;
}
