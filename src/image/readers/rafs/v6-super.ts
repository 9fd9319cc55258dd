import { ShoalError } from '../../../errors.ts';
import type { BinaryReader } from './binary.ts';
import {
  checkBlobId,
  checkFeatures,
  invalidRafs,
  named,
  newChunks,
  RAFS_CODECS,
  RAFS_DIGESTS,
  type RafsBlob,
  type RafsChunks,
} from './model.ts';

/** Byte offset and magic of the EROFS superblock a RAFS v6 bootstrap starts with. */
const SUPER_OFFSET = 1024;
const EROFS_MAGIC = 0xe0f5e1e2;
/** feature_compat bit that marks an EROFS image as RAFS v6. */
const COMPAT_RAFS_V6 = 0x40000000;
/** Incompatible features RAFS v6 has: chunked files and a device table. */
const INCOMPAT_KNOWN = 0xc;
const EXTENDED_OFFSET = SUPER_OFFSET + 128;
const BLOCK_BITS = 12;
const BLOB_BYTES = 256;
/** RafsV5ChunkInfo, which v6 keeps. */
export const CHUNK_INFO_BYTES = 80;
/** A device number has 8 bits in a chunk index. */
const MAX_BLOBS = 255;

/** What the superblocks of a v6 bootstrap say. */
export interface V6Super {
  readonly rootNid: number;
  /** Byte that nids count from. */
  readonly metaOffset: number;
  /** Byte that shared xattr ids count from. */
  readonly xattrOffset: number;
  readonly epoch: number;
  readonly epochNsec: number;
  readonly blobs: readonly RafsBlob[];
  readonly chunks: readonly (RafsChunks | undefined)[];
}

/** True for an EROFS image, RAFS v6 or not. */
export function isErofs(image: BinaryReader): boolean {
  return image.size >= SUPER_OFFSET + 128 && image.u32(SUPER_OFFSET) === EROFS_MAGIC;
}

/** Parses superblock, extended superblock, blob table and chunk table (formats §2.1–2.4). Throws INVALID_LAYER, UNSUPPORTED_LAYER. */
export function parseV6Super(image: BinaryReader): V6Super {
  const field = (at: number): number => image.u32(SUPER_OFFSET + at);
  if ((field(8) & COMPAT_RAFS_V6) === 0) {
    throw new ShoalError('UNSUPPORTED_LAYER', 'the bootstrap is an EROFS image but not RAFS v6 (Nydus fs-version 7?)');
  }
  const blockBits = image.u8(SUPER_OFFSET + 12);
  if (blockBits !== BLOCK_BITS) {
    throw new ShoalError('UNSUPPORTED_LAYER', `RAFS v6 with blocks of ${2 ** blockBits} bytes (tarfs mode)`);
  }
  const unknown = (field(80) & ~INCOMPAT_KNOWN) >>> 0;
  if (unknown !== 0) throw new ShoalError('UNSUPPORTED_LAYER', `RAFS v6 with EROFS features 0x${unknown.toString(16)}`);
  const blobs = parseBlobTable(image);
  return {
    rootNid: image.u16(SUPER_OFFSET + 14),
    metaOffset: field(40) * 2 ** BLOCK_BITS,
    xattrOffset: field(44) * 2 ** BLOCK_BITS,
    epoch: image.i64(SUPER_OFFSET + 24),
    epochNsec: field(32),
    blobs,
    chunks: parseChunkTable(image, blobs.length),
  };
}

function parseBlobTable(image: BinaryReader): RafsBlob[] {
  const offset = image.u64(EXTENDED_OFFSET + 8);
  const length = image.u32(EXTENDED_OFFSET + 16);
  if (length % BLOB_BYTES !== 0 || length / BLOB_BYTES > MAX_BLOBS) throw invalidRafs(`blob table of ${length} bytes`);
  image.check(offset, length);
  const blobs = Array.from({ length: length / BLOB_BYTES }, (_, index) =>
    parseBlob(image, offset + index * BLOB_BYTES, index),
  );
  const devices = image.u16(SUPER_OFFSET + 86);
  if (devices !== blobs.length) throw invalidRafs(`${devices} devices for ${blobs.length} blobs`);
  return blobs;
}

function parseBlob(image: BinaryReader, at: number, index: number): RafsBlob {
  const id = checkBlobId(image.text(at, 64));
  const features = image.u32(at + 84);
  checkFeatures({ id, features }, image.u32(at + 216));
  if (image.u32(at + 64) !== index) throw invalidRafs(`blob ${index} calls itself ${image.u32(at + 64)}`);
  return {
    id,
    index,
    codec: named(RAFS_CODECS, image.u32(at + 76), 'compressor'),
    algorithm: named(RAFS_DIGESTS, image.u32(at + 80), 'digest algorithm'),
    features,
    toc: { length: image.u32(at + 104), digest: image.slice(at + 136, 32) },
    meta: {
      codec: named(RAFS_CODECS, image.u32(at + 108), 'compressor'),
      offset: image.u64(at + 112),
      length: image.u64(at + 120),
      decodedLength: image.u64(at + 128),
    },
    metaBlob: { digest: image.slice(at + 168, 32), length: image.u64(at + 200) },
  };
}

/** The bootstrap's own chunk table, taken apart by blob. */
function parseChunkTable(image: BinaryReader, blobs: number): (RafsChunks | undefined)[] {
  const offset = image.u64(EXTENDED_OFFSET + 24);
  const length = image.u64(EXTENDED_OFFSET + 32);
  if (length % CHUNK_INFO_BYTES !== 0) throw invalidRafs(`chunk table of ${length} bytes`);
  image.check(offset, length);
  const counts = new Array<number>(blobs).fill(0);
  for (let at = offset; at < offset + length; at += CHUNK_INFO_BYTES) {
    const blob = image.u32(at + 32);
    if (blob >= blobs) throw invalidRafs(`a chunk of blob ${blob}`);
    counts[blob] = (counts[blob] as number) + 1;
  }
  const chunks = counts.map((count) => (count === 0 ? undefined : newChunks(count)));
  const filled = new Array<number>(blobs).fill(0);
  for (let at = offset; at < offset + length; at += CHUNK_INFO_BYTES) {
    const blob = image.u32(at + 32);
    const row = filled[blob] as number;
    filled[blob] = row + 1;
    readChunkInfo(image, at, chunks[blob] as RafsChunks, row);
  }
  return chunks;
}

/** Reads one RafsV5ChunkInfo into a row; its device offset is the uncompressed offset as it stands there. */
export function readChunkInfo(image: BinaryReader, at: number, chunks: RafsChunks, row: number): void {
  chunks.digests.set(image.slice(at, 32), 32 * row);
  chunks.flags[row] = image.u32(at + 36) & 0x0f;
  chunks.codedLength[row] = image.u32(at + 40);
  chunks.length[row] = image.u32(at + 44);
  chunks.codedOffset[row] = image.u64(at + 48);
  chunks.deviceOffset[row] = image.u64(at + 56);
  chunks.index[row] = image.u32(at + 72);
}
