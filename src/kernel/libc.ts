import koffi, { type LibraryHandle } from 'koffi';
import { ShoalError } from '../errors.ts';
import { errnoName } from './errno.ts';
import { type SyscallName, syscallNumbers } from './syscall-numbers.ts';

export { ERRNO, errnoName } from './errno.ts';
export type { SyscallName } from './syscall-numbers.ts';

/** What a system call takes: integers, memory, a path (passed NUL-terminated), or NULL. */
export type SyscallArg = number | bigint | Uint8Array | string | null;

type Prepared = number | bigint | Uint8Array | null;
type Native = {
  (...args: Prepared[]): number;
  async(...args: [...Prepared[], (error: unknown, result: number) => void]): void;
};

/** open(2) and fcntl(2) flags; O_LARGEFILE-independent and equal on x86_64 and aarch64. */
export const O = { RDONLY: 0, RDWR: 2, CREAT: 0o100, NONBLOCK: 0o4000, CLOEXEC: 0o2000000, PATH: 0o10000000 } as const;
export const AT_FDCWD = -100;

const RLIMIT_NOFILE = 7;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const MAX_ARGS = 6;

interface Libc {
  readonly library: LibraryHandle;
  readonly numbers: Readonly<Record<SyscallName, number>>;
  /** `syscall(2)` declared once per combination of integer and pointer arguments: bit i set = argument i is a pointer. */
  readonly shapes: (Native | undefined)[];
  readonly read: (fd: number, into: Uint8Array, length: number) => number;
  readonly write: (fd: number, from: Uint8Array, length: number) => number;
  readonly poll: (fds: Uint8Array, count: number, timeoutMs: number) => number;
}

let loaded: Libc | undefined;

/** The C library, loaded on first use, for files of this folder that declare functions of their own. */
export function libcLibrary(): LibraryHandle {
  return libc().library;
}

/** errno of the call just made on this thread; read it before anything else runs. */
export function lastErrno(): number {
  return koffi.errno();
}

/** Makes a system call; the result, or -errno. Never throws for what the kernel refuses. */
export function syscallRaw(name: SyscallName, ...args: SyscallArg[]): number {
  const [native, prepared] = prepare(name, args);
  const result = native(...prepared);
  return result === -1 ? -koffi.errno() : result;
}

/** Makes a system call; the result, or a KERNEL_CALL error that names the call and the errno. */
export function syscall(name: SyscallName, ...args: SyscallArg[]): number {
  return checked(name, syscallRaw(name, ...args));
}

/**
 * Makes a system call on a pool thread; resolves with the result or -errno. For calls that can wait on this very
 * process, such as a mount that opens files this process serves.
 */
export function syscallRawAsync(name: SyscallName, ...args: SyscallArg[]): Promise<number> {
  const [native, prepared] = prepare(name, args);
  return new Promise((resolve, reject) => {
    native.async(...prepared, (error, result) => {
      // koffi shows the pool thread's errno here; `prepared` is named so that its memory outlives the call
      const errno = koffi.errno();
      if (error !== null) reject(error);
      else resolve(result === -1 && prepared.length > 0 ? -errno : result);
    });
  });
}

/** Like `syscallRawAsync`, with a KERNEL_CALL error for a refusal. */
export async function syscallAsync(name: SyscallName, ...args: SyscallArg[]): Promise<number> {
  return checked(name, await syscallRawAsync(name, ...args));
}

/** A KERNEL_CALL error for call `name` that failed with `errno` (positive); `detail` says on what, or the kernel's words. */
export function kernelError(name: string, errno: number, detail = ''): ShoalError {
  return new ShoalError('KERNEL_CALL', `${name}: ${errnoName(errno)}${detail === '' ? '' : `: ${detail}`}`, { errno });
}

/** Turns a raw result into a result or a KERNEL_CALL error. */
export function checked(name: string, result: number, detail = ''): number {
  if (result < 0) throw kernelError(name, -result, detail);
  return result;
}

/** Opens `path` with O_CLOEXEC added to `flags`; throws KERNEL_CALL naming the path. */
export function openFd(path: string, flags: number, mode = 0): number {
  return checked('open', openRaw(path, flags, mode), path);
}

/** Like `openFd`, but -errno on failure. */
export function openRaw(path: string, flags: number, mode = 0): number {
  return syscallRaw('openat', AT_FDCWD, path, flags | O.CLOEXEC, mode);
}

/** Closes a descriptor; 0 or -errno. Linux frees the number even when it reports an error: never retry. */
export function closeRaw(fd: number): number {
  return syscallRaw('close', fd);
}

/** Makes children inherit `fd`, or not; throws KERNEL_CALL. */
export function setInherited(fd: number, inherited: boolean): void {
  checked('fcntl F_SETFD', syscallRaw('fcntl', fd, F_SETFD, inherited ? 0 : FD_CLOEXEC));
}

/** read(2) into `into`, up to its length; bytes read or -errno. Allocates nothing. */
export function readRaw(fd: number, into: Uint8Array): number {
  const result = libc().read(fd, into, into.byteLength);
  return result === -1 ? -koffi.errno() : result;
}

/** write(2) of all of `from`; bytes written or -errno. */
export function writeRaw(fd: number, from: Uint8Array): number {
  const result = libc().write(fd, from, from.byteLength);
  return result === -1 ? -koffi.errno() : result;
}

/** poll(2) on packed `struct pollfd` records {i32 fd, i16 events, i16 revents}; ready records or -errno. Blocks the thread. */
export function pollRaw(fds: Uint8Array, timeoutMs: number): number {
  const result = libc().poll(fds, fds.byteLength >> 3, timeoutMs);
  return result === -1 ? -koffi.errno() : result;
}

/** Descriptors this process may hold. */
export interface NofileLimit {
  readonly soft: number;
  readonly hard: number;
}

/** The RLIMIT_NOFILE in force (`Infinity` for unlimited). */
export function getrlimitNofile(): NofileLimit {
  const old = new BigUint64Array(2);
  syscall('prlimit64', 0, RLIMIT_NOFILE, null, bytesOf(old));
  return decodeLimit(old);
}

/** Raises the soft RLIMIT_NOFILE to `target`, and the hard one where that is permitted; never lowers. Returns what holds now. */
export function setrlimitNofile(target: number): NofileLimit {
  const { soft, hard } = getrlimitNofile();
  if (soft >= target) return { soft, hard };
  const raise = (newSoft: number, newHard: number): number =>
    syscallRaw('prlimit64', 0, RLIMIT_NOFILE, bytesOf(encodeLimit(newSoft, newHard)), null);
  if (target > hard && raise(target, target) === 0) return getrlimitNofile();
  checked('prlimit64', raise(Math.min(target, hard), hard));
  return getrlimitNofile();
}

function encodeLimit(soft: number, hard: number): BigUint64Array {
  const encode = (limit: number): bigint => (Number.isFinite(limit) ? BigInt(limit) : 2n ** 64n - 1n);
  return BigUint64Array.of(encode(soft), encode(hard));
}

function decodeLimit(raw: BigUint64Array): NofileLimit {
  const decode = (limit: bigint): number => (limit === 2n ** 64n - 1n ? Number.POSITIVE_INFINITY : Number(limit));
  return { soft: decode(raw[0] as bigint), hard: decode(raw[1] as bigint) };
}

function bytesOf(words: BigUint64Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
}

function libc(): Libc {
  loaded ??= load();
  return loaded;
}

function load(): Libc {
  const library = openLibrary();
  const io = ['int', 'void *', 'size_t'];
  return {
    library,
    numbers: syscallNumbers(process.arch),
    shapes: new Array<Native | undefined>(1 << MAX_ARGS),
    read: library.func('read', 'intptr_t', io),
    write: library.func('write', 'intptr_t', io),
    poll: library.func('poll', 'int', ['void *', 'ulong', 'int']),
  };
}

function openLibrary(): LibraryHandle {
  const musl = process.arch === 'arm64' ? 'libc.musl-aarch64.so.1' : 'libc.musl-x86_64.so.1';
  let failure: unknown;
  for (const name of ['libc.so.6', musl]) {
    try {
      return koffi.load(name);
    } catch (error) {
      failure = error;
    }
  }
  throw new ShoalError('KERNEL_CALL', `neither libc.so.6 nor ${musl} can be loaded`, { cause: failure });
}

function prepare(name: SyscallName, args: SyscallArg[]): [Native, Prepared[]] {
  const { numbers, shapes } = libc();
  const prepared: Prepared[] = [numbers[name], 0, 0, 0, 0, 0, 0];
  let shape = 0;
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] as SyscallArg;
    if (typeof arg !== 'number' && typeof arg !== 'bigint') shape |= 1 << index;
    prepared[index + 1] = typeof arg === 'string' ? cString(arg) : arg;
  }
  const native = shapes[shape] ?? declareShape(shape);
  shapes[shape] = native;
  return [native, prepared];
}

// glibc and musl read syscall's arguments as longs; on both architectures a fixed prototype passes them like `...` does.
function declareShape(shape: number): Native {
  const types = Array.from({ length: MAX_ARGS }, (_, index) => ((shape >> index) & 1 ? 'void *' : 'intptr_t'));
  return libc().library.func('syscall', 'intptr_t', ['intptr_t', ...types]) as unknown as Native;
}

function cString(text: string): Uint8Array {
  if (text.includes('\0'))
    throw new ShoalError('INVALID_ARGUMENT', `a path cannot hold a NUL: ${JSON.stringify(text)}`);
  return Buffer.from(`${text}\0`);
}
