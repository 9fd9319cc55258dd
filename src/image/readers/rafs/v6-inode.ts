import { BLOCK_BYTES } from '../../../core/block-map.ts';
import type { ByteString, FileExtent, InodeMeta, InodeNode } from '../../layer-tree.ts';
import { byteStringOf, emptyDir } from '../../layer-tree.ts';
import type { BinaryReader } from './binary.ts';
import { invalidRafs } from './model.ts';
import type { V6Super } from './v6-super.ts';

const SLOT_BYTES = 32;
const LAYOUT_PLAIN = 0;
const LAYOUT_INLINE = 2;
const LAYOUT_CHUNKED = 4;
const CHUNK_INDEXES = 0x20;
const CHUNK_48BIT = 0x40;
const CHUNK_INDEX_BYTES = 8;
const NO_BLOCK = 0xffffffff;
const MAX_TARGET_BYTES = 4095;
const XATTR_HEADER_BYTES = 12;
const XATTR_PREFIXES: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  6: 'security.',
};

/** An inode as it lies in the bootstrap. */
export interface RawInode {
  readonly nid: number;
  readonly mode: number;
  readonly size: number;
  readonly layout: number;
  /** i_u. */
  readonly payload: number;
  readonly meta: InodeMeta;
  /** Where what follows inode and xattrs starts. */
  readonly bodyAt: number;
}

/** Reads inodes of a RAFS v6 bootstrap (formats §1.5–1.8, §2.1). Bounded by the bootstrap's length. */
export class V6Inodes {
  readonly #image: BinaryReader;
  readonly #super: V6Super;
  /** Structures of a sound image don't overlap: what reads more than there is runs out of this. */
  #budgetBytes: number;

  constructor(image: BinaryReader, superblock: V6Super) {
    this.#image = image;
    this.#super = superblock;
    this.#budgetBytes = 2 * image.size;
  }

  read(nid: number): RawInode {
    const image = this.#image;
    const at = this.#super.metaOffset + nid * SLOT_BYTES;
    const format = image.u16(at);
    const isExtended = (format & 1) !== 0;
    const bytes = isExtended ? 64 : 32;
    image.check(at, bytes);
    const xattrWords = image.u16(at + 2);
    const xattrBytes = xattrWords === 0 ? 0 : XATTR_HEADER_BYTES + 4 * (xattrWords - 1);
    this.#spend(bytes + xattrBytes);
    const mode = image.u16(at + 4);
    const meta: InodeMeta = isExtended
      ? {
          mode: mode & 0o7777,
          uid: image.u32(at + 24),
          gid: image.u32(at + 28),
          mtimeSec: image.i64(at + 32),
          mtimeNsec: image.u32(at + 40),
        }
      : {
          mode: mode & 0o7777,
          uid: image.u16(at + 24),
          gid: image.u16(at + 26),
          mtimeSec: this.#super.epoch,
          mtimeNsec: this.#super.epochNsec,
        };
    if (xattrBytes > 0) meta.xattrs = this.#xattrs(at + bytes, xattrBytes);
    return {
      nid,
      mode,
      size: isExtended ? image.u64(at + 8) : image.u32(at + 8),
      layout: (format >> 1) & 7,
      payload: image.u32(at + 16),
      meta,
      bodyAt: at + bytes + xattrBytes,
    };
  }

  /** The node of an inode; a directory's children are not filled in. */
  node(raw: RawInode): InodeNode {
    const { meta } = raw;
    switch (raw.mode & 0o170000) {
      case 0o040000:
        return emptyDir(meta);
      case 0o100000:
        return { ...meta, kind: 'file', size: raw.size, extents: this.#extents(raw) };
      case 0o120000:
        return { ...meta, kind: 'symlink', target: this.#target(raw) };
      case 0o020000:
        return { ...meta, kind: 'char', ...deviceOf(raw.payload) };
      case 0o060000:
        return { ...meta, kind: 'block', ...deviceOf(raw.payload) };
      case 0o010000:
        return { ...meta, kind: 'fifo' };
      case 0o140000:
        return { ...meta, kind: 'socket' };
      default:
        throw invalidRafs(`inode ${raw.nid} has mode 0${raw.mode.toString(8)}`);
    }
  }

  /** Content that lies in the bootstrap (directories, symlinks), in blocks. */
  *blocks(raw: RawInode): Generator<Uint8Array> {
    this.#image.check(0, raw.size);
    this.#spend(raw.size);
    if (raw.layout !== LAYOUT_PLAIN && raw.layout !== LAYOUT_INLINE) {
      throw invalidRafs(`inode ${raw.nid} has layout ${raw.layout}`);
    }
    for (let at = 0; at < raw.size; at += BLOCK_BYTES) {
      const length = Math.min(BLOCK_BYTES, raw.size - at);
      const isTail = raw.layout === LAYOUT_INLINE && at + BLOCK_BYTES >= raw.size;
      yield this.#image.slice(isTail ? raw.bodyAt : raw.payload * BLOCK_BYTES + at, length);
    }
  }

  #target(raw: RawInode): ByteString {
    if (raw.size === 0 || raw.size > MAX_TARGET_BYTES)
      throw invalidRafs(`inode ${raw.nid} is a symlink of ${raw.size} bytes`);
    const [target] = [...this.blocks(raw)];
    return byteStringOf(target as Uint8Array);
  }

  #extents(raw: RawInode): FileExtent[] {
    if (raw.size === 0) return [];
    if (raw.layout !== LAYOUT_CHUNKED) throw invalidRafs(`inode ${raw.nid} has file data in the bootstrap`);
    const format = raw.payload & 0xffff;
    if ((format & CHUNK_INDEXES) === 0 || (format & CHUNK_48BIT) !== 0) {
      throw invalidRafs(`inode ${raw.nid} has chunk format 0x${format.toString(16)}`);
    }
    const chunkBytes = BLOCK_BYTES * 2 ** (format & 0x1f);
    const count = Math.ceil(raw.size / chunkBytes);
    const indexAt = Math.ceil(raw.bodyAt / CHUNK_INDEX_BYTES) * CHUNK_INDEX_BYTES;
    this.#image.check(indexAt, count * CHUNK_INDEX_BYTES);
    this.#spend(count * CHUNK_INDEX_BYTES);
    const extents: FileExtent[] = [];
    for (let index = 0; index < count; index += 1) {
      const at = indexAt + index * CHUNK_INDEX_BYTES;
      const block = this.#image.u32(at + 4);
      if (block === NO_BLOCK) continue;
      // the other three bytes number the chunk in its blob
      const device = this.#image.u8(at + 2) - 1;
      if (device < 0 || device >= this.#super.blobs.length)
        throw invalidRafs(`inode ${raw.nid} names device ${device + 1}`);
      const fileOffset = index * chunkBytes;
      append(extents, {
        fileOffset,
        length: Math.min(chunkBytes, raw.size - fileOffset),
        device,
        deviceOffset: block * BLOCK_BYTES,
      });
    }
    return extents;
  }

  #xattrs(at: number, length: number): Map<ByteString, Uint8Array> {
    const image = this.#image;
    image.check(at, length);
    if (length < XATTR_HEADER_BYTES + 4) throw invalidRafs(`xattrs of ${length} bytes`);
    const found = new Map<ByteString, Uint8Array>();
    const shared = image.u8(at + 4);
    const end = at + length;
    let next = at + XATTR_HEADER_BYTES;
    if (next + 4 * shared > end) throw invalidRafs(`${shared} shared xattrs`);
    for (let index = 0; index < shared; index += 1, next += 4) {
      this.#xattr(this.#super.xattrOffset + 4 * image.u32(next), image.size, found);
    }
    while (next + 4 <= end) next = this.#xattr(next, end, found);
    return found;
  }

  #xattr(at: number, limit: number, found: Map<ByteString, Uint8Array>): number {
    const image = this.#image;
    const nameBytes = image.u8(at);
    const prefix = XATTR_PREFIXES[image.u8(at + 1)];
    const valueBytes = image.u16(at + 2);
    const valueAt = at + 4 + nameBytes;
    this.#spend(4 + nameBytes + valueBytes);
    if (prefix === undefined || valueAt + valueBytes > limit) throw invalidRafs(`xattr at byte ${at}`);
    const name = (prefix + byteStringOf(image.slice(at + 4, nameBytes))) as ByteString;
    found.set(name, image.bytes.slice(valueAt, valueAt + valueBytes));
    return Math.ceil((valueAt + valueBytes) / 4) * 4;
  }

  #spend(bytes: number): void {
    this.#budgetBytes -= bytes;
    if (this.#budgetBytes < 0) throw invalidRafs('its parts overlap');
  }
}

/** Adds an extent, joined with the one before where both sides go on. */
export function append(extents: FileExtent[], extent: FileExtent): void {
  const last = extents.at(-1);
  const joins =
    last !== undefined &&
    last.device === extent.device &&
    last.fileOffset + last.length === extent.fileOffset &&
    last.deviceOffset + last.length === extent.deviceOffset;
  if (joins) extents[extents.length - 1] = { ...last, length: last.length + extent.length };
  else extents.push(extent);
}

/** Linux's encoding of a device number in 32 bits. */
export function deviceOf(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}
