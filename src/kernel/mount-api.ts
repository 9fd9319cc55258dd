import { ShoalError } from '../errors.ts';
import {
  AT_FDCWD,
  checked,
  closeRaw,
  ERRNO,
  errnoName,
  kernelError,
  O,
  openRaw,
  readRaw,
  syscall,
  syscallRaw,
  syscallRawAsync,
} from './libc.ts';

/** Mount attributes of fsmount(2) and mount_setattr(2). */
export const MOUNT_ATTR = { RDONLY: 0x1, NOSUID: 0x2, NODEV: 0x4, NOEXEC: 0x8, NOATIME: 0x10 } as const;
/** Flags of umount2(2). */
export const UMOUNT = { DETACH: 2, NOFOLLOW: 8 } as const;
/** Bytes a string value of fsconfig(2) may have. */
const FSCONFIG_STRING_MAX = 255;

const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG = { SET_FLAG: 0, SET_STRING: 1, SET_FD: 5, CMD_CREATE: 6 } as const;
const MOVE_MOUNT_F_EMPTY_PATH = 0x4;
const OPEN_TREE_CLONE = 1;
const AT_EMPTY_PATH = 0x1000;
const STATX = {
  NOFOLLOW: 0x100,
  NO_AUTOMOUNT: 0x800,
  DONT_SYNC: 0x4000,
  MNT_ID: 0x1000,
  ATTR_MOUNT_ROOT: 0x2000n,
} as const;
const SEEK_END = 2;
const LOG_BYTES = 4096;
const LOG_WARNING = 4;
const FS_IOC_GETFSSYSFSPATH = 0x80811501;
/** The kernel's ring buffer holds at most this many lines about one failure that are worth repeating. */
const KERNEL_LOG_LINES = 8;

/** One setting of a filesystem context: a string, an open descriptor, or a bare flag. */
export type FsParameter = readonly [key: string, value: string | number | true];

/** What `createMount` makes: which filesystem, its settings in order, and the attributes of the mount. */
export interface MountRequest {
  readonly fstype: string;
  readonly parameters: readonly FsParameter[];
  readonly attributes: number;
}

/**
 * Makes a detached mount and resolves with its descriptor, CLOEXEC, for `attachMount` or `closeRaw`. Runs the part that
 * opens files on a pool thread. KERNEL_CALL with the filesystem's own words when the kernel refuses.
 */
export async function createMount(request: MountRequest): Promise<number> {
  const context = await createSuperblock(request);
  try {
    const fd = syscallRaw('fsmount', context, FSMOUNT_CLOEXEC, request.attributes);
    return fd < 0 ? fail('fsmount', request.fstype, fd, context) : fd;
  } finally {
    closeRaw(context);
  }
}

/** The first half of `createMount`: a configured context whose superblock exists; the caller closes the descriptor. */
export async function createSuperblock(request: Omit<MountRequest, 'attributes'>): Promise<number> {
  const { fstype, parameters } = request;
  const context = syscall('fsopen', fstype, FSOPEN_CLOEXEC);
  const words = openKernelLog();
  try {
    for (const parameter of parameters) setParameter(context, fstype, parameter);
    const created = await syscallRawAsync('fsconfig', context, FSCONFIG.CMD_CREATE, null, null, 0);
    if (created < 0) fail('fsconfig', `create ${fstype}`, created, context, words);
    return context;
  } catch (error) {
    closeRaw(context);
    throw error;
  } finally {
    if (words >= 0) closeRaw(words);
  }
}

/** Opens a filesystem context, which loads its module; the caller closes the descriptor. KERNEL_CALL (ENODEV) without one. */
export function openFilesystem(fstype: string): number {
  return checked('fsopen', syscallRaw('fsopen', fstype, FSOPEN_CLOEXEC), fstype);
}

/** Sets one parameter of a context; KERNEL_CALL names the key and repeats what the kernel logged. */
export function setParameter(context: number, fstype: string, [key, value]: FsParameter): void {
  const result =
    typeof value === 'string'
      ? syscallRaw('fsconfig', context, FSCONFIG.SET_STRING, key, value, 0)
      : typeof value === 'number'
        ? syscallRaw('fsconfig', context, FSCONFIG.SET_FD, key, null, value)
        : syscallRaw('fsconfig', context, FSCONFIG.SET_FLAG, key, null, 0);
  if (result < 0) fail('fsconfig', `${fstype} ${key}${typeof value === 'string' ? `=${value}` : ''}`, result, context);
}

/** Attaches a detached mount at `target`, an existing directory (not followed when a symbolic link). KERNEL_CALL. */
export function attachMount(mountFd: number, target: string): void {
  const result = syscallRaw('move_mount', mountFd, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
  checked('move_mount', result, target);
}

/** A detached, non-recursive clone of the mount at `path` with `attributes` added (a bind mount); its descriptor. */
export function cloneMount(path: string, attributes: number): number {
  const fd = checked('open_tree', syscallRaw('open_tree', AT_FDCWD, path, OPEN_TREE_CLONE | O.CLOEXEC), path);
  const wanted = new BigUint64Array([BigInt(attributes), 0n, 0n, 0n]);
  const bytes = new Uint8Array(wanted.buffer);
  const result = syscallRaw('mount_setattr', fd, '', AT_EMPTY_PATH, bytes, bytes.byteLength);
  if (result >= 0) return fd;
  closeRaw(fd);
  throw kernelError('mount_setattr', -result, path);
}

/** How an unmount ended: at once, lazily because something still uses it, or there was nothing mounted. */
export type UnmountOutcome = 'unmounted' | 'detached' | 'absent';

/** Unmounts `target`; when busy, detaches it, so that it goes with its last user. KERNEL_CALL on anything else. */
export async function unmount(target: string): Promise<UnmountOutcome> {
  const plain = await syscallRawAsync('umount2', target, UMOUNT.NOFOLLOW);
  if (plain === 0) return 'unmounted';
  if (plain === -ERRNO.EINVAL || plain === -ERRNO.ENOENT) return 'absent';
  if (plain !== -ERRNO.EBUSY) throw kernelError('umount2', -plain, target);
  const lazy = await syscallRawAsync('umount2', target, UMOUNT.NOFOLLOW | UMOUNT.DETACH);
  if (lazy === -ERRNO.EINVAL) return 'absent';
  checked('umount2', lazy, target);
  return 'detached';
}

/** Magic number of the filesystem that holds `path` (statfs(2) f_type). */
export function filesystemMagic(path: string): number {
  const into = Buffer.alloc(120);
  checked('statfs', syscallRaw('statfs', path, into), path);
  return into.readUInt32LE(0);
}

/** True when `path` is the root of a mount, false when not or absent, undefined when statx(2) cannot tell. */
export function isMountRoot(path: string): boolean | undefined {
  const into = Buffer.alloc(256);
  const flags = STATX.NOFOLLOW | STATX.NO_AUTOMOUNT | STATX.DONT_SYNC;
  const result = syscallRaw('statx', AT_FDCWD, path, flags, STATX.MNT_ID, into);
  if (result === -ERRNO.ENOENT) return false;
  if (result < 0 || (into.readBigUInt64LE(56) & STATX.ATTR_MOUNT_ROOT) === 0n) return undefined;
  return (into.readBigUInt64LE(8) & STATX.ATTR_MOUNT_ROOT) !== 0n;
}

/**
 * The name of a mount's superblock below /sys/fs, such as `erofs/erofs-3`, from the mount's descriptor (kernel 6.9);
 * undefined when the filesystem gives none. Opens the mount's root for a moment.
 */
export function sysfsPathOf(mountFd: number): string | undefined {
  const root = syscallRaw('openat', mountFd, '.', O.RDONLY | O.CLOEXEC);
  if (root < 0) return undefined;
  const into = Buffer.alloc(129);
  const result = syscallRaw('ioctl', root, FS_IOC_GETFSSYSFSPATH, into);
  closeRaw(root);
  return result < 0 ? undefined : into.toString('utf8', 1, 1 + (into[0] as number));
}

/** Names for paths that go into fsconfig: the path itself, or `/proc/self/fd/N` where it would not survive. */
export interface PathNames {
  /** A name for `path` of at most 255 bytes; opens the path, on a pool thread, when it needs a descriptor. */
  nameOf(path: string): Promise<string>;
  /** Closes the descriptors; the names are void. */
  [Symbol.dispose](): void;
}

/** A set of names; `plain` says which paths can be passed as they are (default: those that fit in 255 bytes). */
export function pathNames(plain: (path: string) => boolean = fitsString): PathNames {
  const fds: number[] = [];
  return {
    async nameOf(path) {
      if (plain(path)) return path;
      // O_PATH: raises no fanotify event, and needs no permission to read
      const flags = O.PATH | O.CLOEXEC;
      const fd = checked('open', await syscallRawAsync('openat', AT_FDCWD, path, flags, 0), path);
      fds.push(fd);
      return `/proc/self/fd/${fd}`;
    },
    [Symbol.dispose]() {
      for (const fd of fds.splice(0)) closeRaw(fd);
    },
  };
}

/** True when `text` can be a string value of fsconfig(2). */
function fitsString(text: string): boolean {
  return Buffer.byteLength(text) <= FSCONFIG_STRING_MAX;
}

function fail(call: string, what: string, result: number, context: number, kernelLog = -1): never {
  const words = readContextLog(context);
  if (words.length === 0 && kernelLog >= 0) words.push(...readKernelLog(kernelLog));
  throw new ShoalError('KERNEL_CALL', `${call}: ${errnoName(-result)}: ${[what, ...words].join(': ')}`, {
    errno: -result,
  });
}

// Each read(2) yields one message: "e text", "w text" or "i text"; ENODATA ends.
function readContextLog(context: number): string[] {
  const buffer = Buffer.alloc(LOG_BYTES);
  const messages: string[] = [];
  for (
    let read = readRaw(context, buffer);
    read > 0 && messages.length < KERNEL_LOG_LINES;
    read = readRaw(context, buffer)
  ) {
    messages.push(buffer.toString('utf8', 2, read).trim());
  }
  return messages;
}

// EROFS tells why it refuses an image through printk only. A missing or forbidden /dev/kmsg costs the words, nothing else.
function openKernelLog(): number {
  const fd = openRaw('/dev/kmsg', O.RDONLY | O.NONBLOCK);
  if (fd >= 0) syscallRaw('lseek', fd, 0, SEEK_END);
  return fd;
}

// A record is "priority,sequence,time,flags;text\n"; others mount meanwhile, so only complaints are repeated.
function readKernelLog(fd: number): string[] {
  const buffer = Buffer.alloc(2 * LOG_BYTES);
  const lines: string[] = [];
  for (let read = readRaw(fd, buffer); read > 0 && lines.length < KERNEL_LOG_LINES; read = readRaw(fd, buffer)) {
    const record = buffer.toString('utf8', 0, read);
    const level = Number.parseInt(record, 10) & 7;
    const text = record.slice(record.indexOf(';') + 1).split('\n', 1)[0] ?? '';
    if (level <= LOG_WARNING && /erofs|overlayfs/.test(text)) lines.push(text);
  }
  return lines;
}
