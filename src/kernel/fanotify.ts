import { closeSync, constants, openSync } from 'node:fs';
import {
  closeRaw,
  ERRNO,
  kernelError,
  lastErrno,
  libcLibrary,
  readRaw,
  syscall,
  syscallRaw,
  writeRaw,
} from './libc.ts';

/** fanotify(7) numbers that shoal uses; pre-content events need Linux 6.14 or newer. */
export const FAN = {
  ALLOW: 0x01,
  DENY: 0x02,
  PRE_ACCESS: 0x0010_0000,
  Q_OVERFLOW: 0x4000,
  EVENT_INFO_TYPE_RANGE: 6,
  METADATA_VERSION: 3,
  METADATA_BYTES: 24,
} as const;

const CLOEXEC = 0x1;
const NONBLOCK = 0x2;
const CLASS_PRE_CONTENT = 0x8;
const UNLIMITED_QUEUE = 0x10;
const UNLIMITED_MARKS = 0x20;
const O_RDWR = 0o2;
const O_LARGEFILE = process.arch === 'arm64' ? 0o400000 : 0o100000;
const O_CLOEXEC = 0o2000000;
const MARK_ADD = 1;
const EVENT_OPEN = 0x20;
/** Where an event names its descriptor. */
const EVENT_FD_AT = 16;
const MARK_REMOVE = 2;

const EFD_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000;

/** Largest errno-carrying responses: what a pre-content group may answer besides allow (other numbers are refused). */
export type DenyErrno = 'EIO' | 'EPERM' | 'EBUSY' | 'ETXTBSY' | 'EAGAIN' | 'ENOSPC' | 'EDQUOT';

/** The response word that denies with this errno. */
export function denyResponse(errno: DenyErrno): number {
  return FAN.DENY | (ERRNO[errno] << 24);
}

/**
 * A new pre-content group, non-blocking, CLOEXEC, with no queue limit (an overflowing queue *allows* what it drops).
 * Throws KERNEL_CALL: EPERM without CAP_SYS_ADMIN, EINVAL or ENOSYS on kernels without permission events.
 */
export function openPreContentGroup(): number {
  const flags = CLASS_PRE_CONTENT | CLOEXEC | NONBLOCK | UNLIMITED_QUEUE | UNLIMITED_MARKS;
  return syscall('fanotify_init', flags, O_RDWR | O_LARGEFILE | O_CLOEXEC);
}

/** Marks the inode that `fd` is open on, whatever its path; marking twice changes nothing. Throws KERNEL_CALL. */
export function markPreAccess(group: number, fd: number): void {
  syscall('fanotify_mark', group, MARK_ADD, FAN.PRE_ACCESS, fd, null);
}

/** Removes the mark of the inode that `fd` is open on; false when there was none. */
export function unmarkPreAccess(group: number, fd: number): boolean {
  return syscallRaw('fanotify_mark', group, MARK_REMOVE, FAN.PRE_ACCESS, fd, null) === 0;
}

/**
 * Opens a file read-write (made 0600 when missing, no link followed) so that reads and writes through the descriptor
 * raise no event of any group, whatever marks the file has: it is the descriptor of an event itself (formats.md §6.1).
 * A daemon that takes over marked files would otherwise wait for its own answer. Where fanotify is not to be had, a
 * plain descriptor. Throws Node's error of open(2). ftruncate(2) raises an event all the same.
 */
export function openUnnoticed(path: string): number {
  const plain = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  const group = syscallRaw('fanotify_init', CLOEXEC | NONBLOCK, O_RDWR | O_LARGEFILE | O_CLOEXEC);
  if (group < 0) return plain;
  try {
    if (syscallRaw('fanotify_mark', group, MARK_ADD, EVENT_OPEN, plain, null) < 0) return plain;
    closeSync(openSync(`/proc/self/fd/${plain}`, 'r'));
    const event = new Uint8Array(FAN.METADATA_BYTES);
    if (readRaw(group, event) !== event.byteLength) return plain;
    const unnoticed = new DataView(event.buffer).getInt32(EVENT_FD_AT, true);
    if (unnoticed < 0) return plain;
    closeSync(plain);
    return unnoticed;
  } finally {
    closeRaw(group);
  }
}

/** Writes responses to one group; owns its buffer, so one per thread. */
export interface Responder {
  /** Answers the event whose descriptor number is (or was) `eventFd`; 0 or -errno, -ENOENT when no such event waits. */
  respond(eventFd: number, response: number): number;
  /** Closes a descriptor without allocating; 0 or -errno. */
  close(fd: number): number;
}

/** A responder for `group` (fanotify(7), "Dealing with permission events"). */
export function createResponder(group: number): Responder {
  const words = new Int32Array(2);
  const bytes = new Uint8Array(words.buffer);
  const close: (fd: number) => number = libcLibrary().func('close', 'int', ['int']);
  return {
    respond(eventFd, response) {
      words[0] = eventFd;
      words[1] = response;
      const written = writeRaw(group, bytes);
      return Math.min(written, 0);
    },
    close(fd) {
      return close(fd) === -1 ? -lastErrno() : 0;
    },
  };
}

/** A non-blocking CLOEXEC eventfd(2) with count 0: wakes a thread that waits in poll. Throws KERNEL_CALL. */
export function openEventFd(): number {
  const eventfd: (count: number, flags: number) => number = libcLibrary().func('eventfd', 'int', ['uint', 'int']);
  const fd = eventfd(0, EFD_CLOEXEC_NONBLOCK);
  if (fd === -1) throw kernelError('eventfd', lastErrno());
  return fd;
}

/** Adds one to an eventfd. */
export function wakeEventFd(fd: number): void {
  writeRaw(fd, ONE);
}

const ONE = new Uint8Array(BigUint64Array.of(1n).buffer);
