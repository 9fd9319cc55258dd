import { ShoalError } from '../errors.ts';
import { BLOCK_BYTES } from './block-map.ts';
import { type Checkpoint, type ChunkTable, CODECS, TABLE_ALGORITHMS } from './chunk-table.ts';
import { ChunkTableBuilder } from './chunk-table-builder.ts';

const MAGIC = 0x54434853; // "SHCT"
const VERSION = 1;
const HEADER_BYTES = 48;
const EXTENT_BYTES = 24;
const CHUNK_BYTES = 16 + 32;
/** Flag at byte 36 of the header: chunk rows have 4 bytes more, the chunk's distance from its block's start. */
const FLAG_PACKED = 1;
/** Flag beside it: extent rows have 32 bytes more, the digest of the compressed range. */
const FLAG_EXTENT_DIGESTS = 2;
const SKEW_BYTES = 4;
const DIGEST_BYTES = 32;

/** The table as bytes, for `blobs/<hex>/table`: little-endian, fixed-size rows. */
export function encodeChunkTable(table: ChunkTable): Uint8Array {
  const { extents, blockStart, skew, length, extentOf, inner } = table.columns;
  const rowBytes = CHUNK_BYTES + (skew === undefined ? 0 : SKEW_BYTES);
  const digests = extents.length > 0 && extents.every(({ digest }) => digest !== undefined);
  const extentBytes = EXTENT_BYTES + (digests ? DIGEST_BYTES : 0);
  const bytes = new Uint8Array(HEADER_BYTES + extents.length * extentBytes + table.count * rowBytes);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setBigUint64(8, BigInt(table.deviceSize), true);
  view.setBigUint64(16, BigInt(table.compressedSize), true);
  view.setUint32(24, extents.length, true);
  view.setUint32(28, table.count, true);
  view.setUint32(32, TABLE_ALGORITHMS.indexOf(table.algorithm), true);
  view.setUint32(36, (skew === undefined ? 0 : FLAG_PACKED) | (digests ? FLAG_EXTENT_DIGESTS : 0), true);
  let at = HEADER_BYTES;
  for (const extent of extents) {
    view.setBigUint64(at, BigInt(extent.offset), true);
    view.setUint32(at + 8, extent.length, true);
    view.setUint32(at + 12, extent.decodedLength, true);
    view.setUint32(at + 16, CODECS.indexOf(extent.codec), true);
    view.setUint32(at + 20, encodeCheckpoint(extent.checkpoint), true);
    if (digests) bytes.set(extent.digest as Uint8Array, at + EXTENT_BYTES);
    at += extentBytes;
  }
  for (let index = 0; index < table.count; index += 1, at += rowBytes) {
    view.setUint32(at, blockStart[index] as number, true);
    view.setUint32(at + 4, length[index] as number, true);
    view.setUint32(at + 8, extentOf[index] as number, true);
    view.setUint32(at + 12, inner[index] as number, true);
    bytes.set(table.digestBytesAt(index), at + 16);
    if (skew !== undefined) view.setUint32(at + CHUNK_BYTES, skew[index] as number, true);
  }
  return bytes;
}

/** Reads what `encodeChunkTable` wrote, checking everything again. Throws STATE_CORRUPT or INVALID_CHUNK_TABLE. */
export function decodeChunkTable(bytes: Uint8Array): ChunkTable {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < HEADER_BYTES || view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) {
    throw new ShoalError('STATE_CORRUPT', 'not a chunk table of this version');
  }
  const extentCount = view.getUint32(24, true);
  const count = view.getUint32(28, true);
  const packed = (view.getUint32(36, true) & FLAG_PACKED) !== 0;
  const digests = (view.getUint32(36, true) & FLAG_EXTENT_DIGESTS) !== 0;
  const extentBytes = EXTENT_BYTES + (digests ? DIGEST_BYTES : 0);
  const rowBytes = CHUNK_BYTES + (packed ? SKEW_BYTES : 0);
  if (bytes.byteLength !== HEADER_BYTES + extentCount * extentBytes + count * rowBytes) {
    throw new ShoalError('STATE_CORRUPT', 'chunk table is cut short');
  }
  const algorithm = TABLE_ALGORITHMS[view.getUint32(32, true)];
  if (algorithm === undefined) throw new ShoalError('STATE_CORRUPT', 'chunk table names an unknown digest algorithm');
  const builder = new ChunkTableBuilder({ compressedSize: Number(view.getBigUint64(16, true)), algorithm, packed });
  const chunksAt = HEADER_BYTES + extentCount * extentBytes;
  for (let index = 0; index < count; index += 1) {
    const at = chunksAt + index * rowBytes;
    const extent = view.getUint32(at + 8, true);
    if (extent >= extentCount) throw new ShoalError('STATE_CORRUPT', `chunk ${index} names extent ${extent}`);
    const extentAt = HEADER_BYTES + extent * extentBytes;
    const digestAt = extentAt + EXTENT_BYTES;
    const codec = CODECS[view.getUint32(extentAt + 16, true)];
    if (codec === undefined) throw new ShoalError('STATE_CORRUPT', `extent ${extent} names an unknown codec`);
    builder.addRaw(
      {
        deviceOffset: view.getUint32(at, true) * BLOCK_BYTES + (packed ? view.getUint32(at + CHUNK_BYTES, true) : 0),
        length: view.getUint32(at + 4, true),
        extentOffset: Number(view.getBigUint64(extentAt, true)),
        extentLength: view.getUint32(extentAt + 8, true),
        codec,
        checkpoint: decodeCheckpoint(view.getUint32(extentAt + 20, true)),
        innerOffset: view.getUint32(at + 12, true),
        decodedLength: view.getUint32(extentAt + 12, true),
        extentDigest: digests ? bytes.subarray(digestAt, digestAt + DIGEST_BYTES) : undefined,
      },
      bytes.subarray(at + 16, at + 48),
    );
  }
  const table = builder.build();
  if (BigInt(table.deviceSize) !== view.getBigUint64(8, true) || table.extentCount !== extentCount) {
    throw new ShoalError('STATE_CORRUPT', 'chunk table contradicts its own header');
  }
  return table;
}

/** Bits in the low byte, window row plus one above it; 0, which is what older tables have here, says neither. */
function encodeCheckpoint(checkpoint: Checkpoint | undefined): number {
  if (checkpoint === undefined) return 0;
  return checkpoint.bits + 256 * ((checkpoint.window ?? -1) + 1);
}

function decodeCheckpoint(word: number): Checkpoint {
  const row = word >>> 8;
  return { bits: word & 0xff, window: row === 0 ? undefined : row - 1 };
}
