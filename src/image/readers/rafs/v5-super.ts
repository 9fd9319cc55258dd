import { ShoalError } from '../../../errors.ts';
import type { BinaryReader } from './binary.ts';
import { checkBlobId, checkFeatures, invalidRafs, RAFS_CODECS, RAFS_DIGESTS, type RafsBlob } from './model.ts';

const MAGIC = 0x52414653;
const VERSION_5 = 0x500;
const SUPER_BYTES = 8192;
const EXTENDED_BLOB_BYTES = 64;
/** Blobs of an image: a layer has one, a chunk dictionary some more. */
const MAX_BLOBS = 1024;
/** File system flags by compressor and digest, in the order of their numbers (formats §2.2). */
const COMPRESSOR_FLAGS = [0x1, 0x2, 0x40, 0x80];
const DIGEST_FLAGS = [0x4, 0x8];
const FLAG_ENCRYPTED = 0x02000000;

/** What the superblock of a v5 bootstrap says. */
export interface V5Super {
  readonly inodeTable: { readonly offset: number; readonly entries: number };
  readonly blobs: readonly RafsBlob[];
}

/** True for a RAFS superblock at byte 0. */
export function isV5(image: BinaryReader): boolean {
  return image.size >= SUPER_BYTES && image.u32(0) === MAGIC;
}

/** Parses superblock and blob tables (formats §2.8). Throws INVALID_LAYER or UNSUPPORTED_LAYER. */
export function parseV5Super(image: BinaryReader): V5Super {
  const version = image.u32(4);
  if (version !== VERSION_5) throw new ShoalError('UNSUPPORTED_LAYER', `RAFS version 0x${version.toString(16)}`);
  const flags = image.u64(16);
  if (Math.floor(flags / FLAG_ENCRYPTED) % 2 === 1) {
    throw new ShoalError('UNSUPPORTED_LAYER', 'the Nydus image is encrypted');
  }
  const compressor = COMPRESSOR_FLAGS.findIndex((flag) => (flags & flag) !== 0);
  const digest = DIGEST_FLAGS.findIndex((flag) => (flags & flag) !== 0);
  if (digest < 0) throw invalidRafs('it names no digest algorithm');
  const inodeTable = { offset: image.u64(32), entries: image.u32(56) };
  image.check(inodeTable.offset, 4 * inodeTable.entries);
  const ids = parseBlobIds(image, image.u64(48), image.u32(64));
  const extended = { offset: image.u64(72), entries: image.u32(68) };
  image.check(extended.offset, EXTENDED_BLOB_BYTES * extended.entries);
  const blobs = ids.map((id, index): RafsBlob => {
    const features = index < extended.entries ? image.u32(extended.offset + EXTENDED_BLOB_BYTES * index + 4) : 0;
    checkFeatures({ id, features }, 0);
    return {
      id,
      index,
      codec: RAFS_CODECS[Math.max(0, compressor)] ?? 'none',
      algorithm: RAFS_DIGESTS[digest] ?? 'blake3',
      features,
      toc: { length: 0, digest: new Uint8Array(32) },
      meta: { codec: 'none', offset: 0, length: 0, decodedLength: 0 },
      metaBlob: { digest: new Uint8Array(32), length: 0 },
    };
  });
  return { inodeTable, blobs };
}

/** Entries of two numbers and a blob id, with a NUL between them. */
function parseBlobIds(image: BinaryReader, offset: number, length: number): string[] {
  image.check(offset, length);
  const ids: string[] = [];
  const end = offset + length;
  for (let at = offset; at < end; ) {
    if (at + 8 >= end) throw invalidRafs('a blob table that is cut short');
    const id = checkBlobId(image.text(at + 8, end - at - 8));
    ids.push(id);
    if (ids.length > MAX_BLOBS) throw invalidRafs(`more than ${MAX_BLOBS} blobs`);
    at += 8 + id.length + 1;
  }
  return ids;
}
