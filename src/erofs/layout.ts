import { BLOCK_BYTES } from '../core/block-map.ts';

/** On-disk numbers of EROFS that writer and reader share (formats §1). All integers are little-endian. */

/** Byte offset of the superblock. */
export const SUPERBLOCK_OFFSET = 1024;
export const SUPERBLOCK_BYTES = 128;
export const SUPERBLOCK_MAGIC = 0xe0f5e1e2;
/** log2 of the block size. */
export const BLOCK_BITS = 12;
/** One device slot; the table follows the superblock. */
export const DEVICE_SLOT_BYTES = 128;
export const DEVICE_TABLE_OFFSET = SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES;
export const DEVICE_TAG_BYTES = 64;
/** The root's nid is 16 bits wide, so the table in front of it has to end well below 2 MiB. */
export const MAX_DEVICES = 4096;

export const COMPAT_SB_CHKSUM = 0x1;
export const COMPAT_MTIME = 0x2;
export const INCOMPAT_CHUNKED_FILE = 0x4;
export const INCOMPAT_DEVICE_TABLE = 0x8;

/** Inodes start at multiples of this; a nid counts these from byte 0. */
export const SLOT_BYTES = 32;
export const COMPACT_INODE_BYTES = 32;
export const EXTENDED_INODE_BYTES = 64;

export const LAYOUT_PLAIN = 0;
export const LAYOUT_INLINE = 2;
export const LAYOUT_CHUNKED = 4;

/** i_u bit that says chunk entries are 8 bytes and name a device. */
export const CHUNK_INDEXES = 0x20;
export const CHUNK_BITS_MASK = 0x1f;
export const CHUNK_INDEX_BYTES = 8;
/** Start block of a hole, and of a file without data. */
export const NO_BLOCK = 0xffffffff;

export const DIRENT_BYTES = 12;
export const MAX_NAME_BYTES = 255;
/** PATH_MAX without its NUL: longer targets cannot be followed. */
export const MAX_SYMLINK_BYTES = 4095;

export const XATTR_HEADER_BYTES = 12;
export const XATTR_ENTRY_BYTES = 4;
export const MAX_SHARED_XATTRS = 255;
/** i_xattr_icount is 16 bits wide and counts 4-byte units after the header. */
export const MAX_XATTR_BODY_BYTES = XATTR_HEADER_BYTES + 4 * 0xfffe;
export const MAX_XATTR_VALUE_BYTES = 0xffff;

/** File kinds: dirent file_type, and the type bits of i_mode. */
export const KINDS = {
  file: { fileType: 1, mode: 0o100000 },
  dir: { fileType: 2, mode: 0o040000 },
  char: { fileType: 3, mode: 0o020000 },
  block: { fileType: 4, mode: 0o060000 },
  fifo: { fileType: 5, mode: 0o010000 },
  socket: { fileType: 6, mode: 0o140000 },
  symlink: { fileType: 7, mode: 0o120000 },
  whiteout: { fileType: 3, mode: 0o020000 },
} as const;

/** `value` rounded up to a multiple of `unit` (safe beyond 32 bits). */
export function alignUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Blocks that `bytes` bytes take. */
export function blocksFor(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES);
}
