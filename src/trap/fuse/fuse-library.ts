import { createRequire } from 'node:module';
import { ShoalError } from '../../errors.ts';
import { preloadLibrary } from '../../kernel/preload.ts';

/** What stat of a FUSE file is made of. */
export interface FuseAttributes {
  readonly mode: number;
  readonly size: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Date;
  readonly atime: Date;
  readonly ctime: Date;
  readonly nlink: number;
}

/** The file system calls shoal serves; `code` is 0 or -errno, and for `read` the number of bytes. */
export interface FuseOperations {
  getattr(path: string, done: (code: number, attributes?: FuseAttributes) => void): void;
  readdir(path: string, done: (code: number, names?: string[]) => void): void;
  open(path: string, flags: number, done: (code: number, handle?: number) => void): void;
  read(path: string, handle: number, into: Buffer, length: number, offset: number, done: (code: number) => void): void;
  release(path: string, handle: number, done: (code: number) => void): void;
  statfs(path: string, done: (code: number, stats?: Record<string, number>) => void): void;
}

/** A FUSE mount served by this process. */
export interface FuseMount {
  mount(done: (error: Error | null) => void): void;
  unmount(done: (error: Error | null) => void): void;
}

/** The class that fuse-native exports. */
export interface FuseClass {
  new (mountpoint: string, operations: Partial<FuseOperations>, options: Record<string, unknown>): FuseMount;
  /** How a mount is taken away; called by `FuseMount.unmount`. */
  unmount(mountpoint: string, done: (error: Error | null) => void): void;
}

const require = createRequire(import.meta.url);

/**
 * fuse-native, with the libfuse.so.2 that its own dependency ships loaded first: the dynamic linker then finds that name
 * among what is loaded, and nothing has to be installed. Throws TRAP_UNAVAILABLE saying what to do.
 */
export function loadFuseLibrary(): FuseClass {
  try {
    const besideFuse = createRequire(require.resolve('fuse-native'));
    preloadLibrary((besideFuse('fuse-shared-library') as { lib: string }).lib);
  } catch {
    // none is shipped for this platform: the system's own may do
  }
  try {
    return require('fuse-native') as FuseClass;
  } catch (cause) {
    const advice = 'install libfuse 2 (Debian: libfuse2, Fedora: fuse-libs) or use trap = "fanotify"';
    const why = cause instanceof Error ? (cause.message.split('\n')[0] as string) : String(cause);
    throw new ShoalError('TRAP_UNAVAILABLE', `the FUSE trap cannot be loaded (${why}); ${advice}`, { cause });
  }
}
