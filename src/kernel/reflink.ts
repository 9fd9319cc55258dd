import { syscallRawAsync } from './libc.ts';

const FICLONERANGE = 0x4020940d;
const RANGE_BYTES = 32;

/** A place in an open file, bytes. */
export interface FilePlace {
  readonly fd: number;
  readonly offset: number;
}

/**
 * Lets `length` bytes at `to` share the disk blocks of those at `from` (ioctl_ficlonerange(2)), on a pool thread: dirty
 * pages of both ranges are written first. Offsets and length must be multiples of the file system's block, and `length`
 * not 0. 0 or -errno; EOPNOTSUPP, ENOTTY, EXDEV and EINVAL come from file systems that cannot. Files that a trap has
 * marked raise an event for each descriptor that a read would raise one for.
 */
export function cloneRange(from: FilePlace, to: FilePlace, length: number): Promise<number> {
  // struct file_clone_range {s64 src_fd, u64 src_offset, u64 src_length, u64 dest_offset}
  const range = Buffer.alloc(RANGE_BYTES);
  range.writeBigInt64LE(BigInt(from.fd), 0);
  range.writeBigUInt64LE(BigInt(from.offset), 8);
  range.writeBigUInt64LE(BigInt(length), 16);
  range.writeBigUInt64LE(BigInt(to.offset), 24);
  return syscallRawAsync('ioctl', to.fd, FICLONERANGE, range);
}
