import { BLOCK_BYTES } from '../../core/block-map.ts';
import { ShoalError } from '../../errors.ts';
import { ERRNO } from '../../kernel/libc.ts';
import type { Fault, TrapDevice } from '../trap.ts';
import type { JournalEntry } from './journal.ts';
import type { ThreadDevice } from './thread-protocol.ts';

/** An event whose file nobody looked at may be of any of them, where the trap knows them all. */
export function isOf({ inode, filesystem }: JournalEntry, known: ThreadDevice, knowsAll: boolean): boolean {
  if (inode === 0) return knowsAll;
  return known.inode === inode && known.filesystem === filesystem;
}

/** The range as blocks of this device; undefined when it ends before. */
export function wholeBlocks({ id, presence }: TrapDevice, offset: number, length: number): Fault | undefined {
  const first = Math.floor(offset / BLOCK_BYTES);
  const end = Math.min(Math.ceil((offset + length) / BLOCK_BYTES), presence.blockCount);
  if (first >= end) return undefined;
  return { device: id, offset: first * BLOCK_BYTES, length: (end - first) * BLOCK_BYTES };
}

/** Whether the fault's whole range is there. */
export function isPresent(device: TrapDevice, { offset, length }: Fault): boolean {
  return device.presence.hasRange(Math.floor(offset / BLOCK_BYTES), Math.ceil((offset + length) / BLOCK_BYTES));
}

/** Faults of one would be answered by what the other has: readers would get holes. */
export function idTaken(device: TrapDevice, other: TrapDevice): ShoalError {
  return new ShoalError('FAILED_PRECONDITION', `${device.name} has the device number of ${other.name}, ${device.id}`);
}

/** Why reads of the device cannot be trapped. */
export function markError(device: TrapDevice, cause: unknown): ShoalError {
  const errno = cause instanceof ShoalError ? cause.context.errno : undefined;
  const why =
    errno === ERRNO.EOPNOTSUPP
      ? 'its file system has no pre-content events; keep blobs on ext4, xfs or btrfs'
      : errno === ERRNO.EINVAL
        ? 'this kernel has no pre-content events; Linux 6.15 or newer is needed'
        : String(cause);
  return new ShoalError('TRAP_UNAVAILABLE', `cannot trap reads of ${device.path}: ${why}`, { cause });
}
