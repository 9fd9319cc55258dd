import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import {
  alignUp,
  blocksFor,
  CHUNK_BITS_MASK,
  CHUNK_INDEX_BYTES,
  CHUNK_INDEXES,
  COMPACT_INODE_BYTES,
  EXTENDED_INODE_BYTES,
  KINDS,
  LAYOUT_CHUNKED,
  LAYOUT_INLINE,
  LAYOUT_PLAIN,
  NO_BLOCK,
  SLOT_BYTES,
  XATTR_HEADER_BYTES,
} from './layout.ts';

/** A parsed inode header (formats §1.5). */
export interface RawInode {
  readonly nid: number;
  readonly kind: keyof typeof KINDS;
  readonly layout: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly links: number;
  readonly size: number;
  /** i_u: start block, device number or chunk format. */
  readonly payload: number;
  /** Byte offset and length of the xattr ibody. */
  readonly xattrAt: number;
  readonly xattrBytes: number;
}

/** A piece of a file as its chunk indexes give it: blocks of a device (1 is the first extra device). */
export interface RawExtent {
  readonly fileBlock: number;
  readonly device: number;
  readonly deviceBlock: number;
  readonly blocks: number;
}

const KIND_NAMES = ['file', 'dir', 'char', 'block', 'fifo', 'socket', 'symlink'] as const;

/** Parses the inode at `nid`. Throws INVALID_LAYER when it is not one or lies outside the image. */
export function parseInode(view: DataView, nid: number): RawInode {
  const at = nid * SLOT_BYTES;
  if (at + COMPACT_INODE_BYTES > view.byteLength) throw invalidInode(nid, 'lies outside the image');
  const format = view.getUint16(at, true);
  const extended = (format & 1) === 1;
  const layout = (format >> 1) & 7;
  const headBytes = extended ? EXTENDED_INODE_BYTES : COMPACT_INODE_BYTES;
  if ((format & ~0xf) !== 0 || ![LAYOUT_PLAIN, LAYOUT_INLINE, LAYOUT_CHUNKED].includes(layout)) {
    throw invalidInode(nid, `format 0x${format.toString(16)}`);
  }
  const icount = view.getUint16(at + 2, true);
  const xattrBytes = icount === 0 ? 0 : XATTR_HEADER_BYTES + 4 * (icount - 1);
  if (icount === 1 || at + headBytes + xattrBytes > view.byteLength) throw invalidInode(nid, `xattr count ${icount}`);
  const mode = view.getUint16(at + 4, true);
  const kind = KIND_NAMES.find((name) => KINDS[name].mode === (mode & 0o170000));
  const size = view.getUint32(at + 8, true) + (extended ? view.getUint32(at + 12, true) * 2 ** 32 : 0);
  if (kind === undefined || !Number.isSafeInteger(size)) throw invalidInode(nid, `mode ${mode}, size ${size}`);
  const place = { nid, kind, layout, mode: mode & 0o7777, size, payload: view.getUint32(at + 16, true) };
  const rest = { xattrAt: at + headBytes, xattrBytes };
  if (!extended) {
    const owner = { uid: view.getUint16(at + 24, true), gid: view.getUint16(at + 26, true) };
    const links = view.getUint16(at + 6, true);
    return { ...place, ...rest, ...owner, links, mtimeSec: view.getUint32(at + 12, true), mtimeNsec: 0 };
  }
  const mtimeSec = Number(view.getBigInt64(at + 32, true));
  const mtimeNsec = view.getUint32(at + 40, true);
  if (!Number.isSafeInteger(mtimeSec) || mtimeNsec > 999_999_999) throw invalidInode(nid, `mtime ${mtimeSec}`);
  const owner = { uid: view.getUint32(at + 24, true), gid: view.getUint32(at + 28, true) };
  return { ...place, ...rest, ...owner, links: view.getUint32(at + 44, true), mtimeSec, mtimeNsec };
}

/** Content of a plain or inline inode (directory or symlink) in pieces of at most one block each; views of `image`. */
export function flatBlocks(image: Uint8Array, inode: RawInode): Uint8Array[] {
  if (inode.size > image.byteLength) throw invalidInode(inode.nid, `size ${inode.size}`);
  if (inode.layout === LAYOUT_CHUNKED) throw invalidInode(inode.nid, `${inode.kind} in chunks`);
  const tail = inode.layout === LAYOUT_INLINE ? inode.size % BLOCK_BYTES : 0;
  const outside = inode.size - tail;
  const start = inode.payload * BLOCK_BYTES;
  if (outside > 0 && (inode.payload === NO_BLOCK || start + outside > image.byteLength)) {
    throw invalidInode(inode.nid, `data at block ${inode.payload}`);
  }
  const blocks: Uint8Array[] = [];
  for (let at = 0; at < outside; at += BLOCK_BYTES) {
    blocks.push(image.subarray(start + at, start + Math.min(at + BLOCK_BYTES, outside)));
  }
  if (inode.layout === LAYOUT_INLINE) {
    const at = inode.xattrAt + inode.xattrBytes;
    if (tail === 0 || (at % BLOCK_BYTES) + tail > BLOCK_BYTES || at + tail > image.byteLength) {
      throw invalidInode(inode.nid, `inline tail of ${tail} bytes at ${at}`);
    }
    blocks.push(image.subarray(at, at + tail));
  }
  return blocks;
}

/** Chunk indexes of a file (formats §1.6): byte offset, count, and blocks per chunk. */
export function chunkTableOf(view: DataView, inode: RawInode): { at: number; count: number; step: number } {
  const format = inode.payload;
  if ((format & CHUNK_INDEXES) === 0 || (format & ~(CHUNK_INDEXES | CHUNK_BITS_MASK)) !== 0) {
    throw invalidInode(inode.nid, `chunk format 0x${format.toString(16)}`);
  }
  const step = 2 ** (format & CHUNK_BITS_MASK);
  const count = Math.ceil(blocksFor(inode.size) / step);
  const at = alignUp(inode.xattrAt + inode.xattrBytes, CHUNK_INDEX_BYTES);
  if (at + count * CHUNK_INDEX_BYTES > view.byteLength) throw invalidInode(inode.nid, `${count} chunks`);
  return { at, count, step };
}

/** The extents of a chunk-based file, neighbours joined; holes are left out. */
export function chunkExtents(view: DataView, inode: RawInode): RawExtent[] {
  const { at, count, step } = chunkTableOf(view, inode);
  const total = blocksFor(inode.size);
  const extents: RawExtent[] = [];
  for (let chunk = 0; chunk < count; chunk += 1) {
    const deviceBlock = view.getUint32(at + chunk * CHUNK_INDEX_BYTES + 4, true);
    if (deviceBlock === NO_BLOCK) continue;
    const device = view.getUint16(at + chunk * CHUNK_INDEX_BYTES + 2, true);
    const fileBlock = chunk * step;
    const blocks = Math.min(step, total - fileBlock);
    const last = extents.at(-1);
    const joins =
      last !== undefined &&
      last.device === device &&
      last.fileBlock + last.blocks === fileBlock &&
      last.deviceBlock + last.blocks === deviceBlock;
    if (joins) extents[extents.length - 1] = { ...last, blocks: last.blocks + blocks };
    else extents.push({ fileBlock, device, deviceBlock, blocks });
  }
  return extents;
}

/** INVALID_LAYER that names the inode. */
export function invalidInode(nid: number, what: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `EROFS inode ${nid}: ${what}`);
}
