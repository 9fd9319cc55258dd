import { ShoalError } from '../errors.ts';

/** System calls shoal makes by number. */
export type SyscallName = keyof typeof X86_64;

const X86_64 = {
  close: 3,
  lseek: 8,
  ioctl: 16,
  madvise: 28,
  dup: 32,
  kill: 62,
  fcntl: 72,
  fdatasync: 75,
  statfs: 137,
  fstatfs: 138,
  prctl: 157,
  mount: 165,
  umount2: 166,
  fadvise64: 221,
  openat: 257,
  unshare: 272,
  fallocate: 285,
  dup3: 292,
  fanotify_init: 300,
  fanotify_mark: 301,
  prlimit64: 302,
  syncfs: 306,
  setns: 308,
  memfd_create: 319,
  statx: 332,
  pidfd_send_signal: 424,
  open_tree: 428,
  move_mount: 429,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  fspick: 433,
  pidfd_open: 434,
  close_range: 436,
  pidfd_getfd: 438,
  mount_setattr: 442,
} as const;

// Numbers from 424 up are the same on every architecture.
const AARCH64: Record<SyscallName, number> = {
  ...X86_64,
  dup: 23,
  dup3: 24,
  fcntl: 25,
  ioctl: 29,
  umount2: 39,
  mount: 40,
  statfs: 43,
  fstatfs: 44,
  fallocate: 47,
  openat: 56,
  close: 57,
  lseek: 62,
  fdatasync: 83,
  unshare: 97,
  kill: 129,
  prctl: 167,
  fadvise64: 223,
  madvise: 233,
  prlimit64: 261,
  fanotify_init: 262,
  fanotify_mark: 263,
  syncfs: 267,
  setns: 268,
  memfd_create: 279,
  statx: 291,
};

/** The number of each call on `arch` (as in `process.arch`); KERNEL_CALL on an architecture without a table. */
export function syscallNumbers(arch: string): Readonly<Record<SyscallName, number>> {
  if (arch === 'x64') return X86_64;
  if (arch === 'arm64') return AARCH64;
  throw new ShoalError('KERNEL_CALL', `no system call table for ${arch}; shoal runs on x64 and arm64`);
}
