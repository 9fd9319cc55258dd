import type { BlockMap } from '../core/block-map.ts';
import type { ShoalError } from '../errors.ts';

/** A device as a trap sees it. */
export interface TrapDevice {
  /** Small positive number, unique within the daemon, never reused while attached. */
  readonly id: number;
  /** Hex digest of the blob: the file name where a trap needs one. */
  readonly name: string;
  /** Absolute path of the sparse data file. */
  readonly path: string;
  /** Device length in bytes, a multiple of 4096. */
  readonly size: number;
  /** Read-write descriptor of the data file, opened before `attach`: writes through it raise no event. */
  readonly fd: number;
  /** Which blocks are present; shared memory. */
  readonly presence: BlockMap;
}

/** A cold read that a trap must answer: bytes [offset, offset + length) of a device, 4096-aligned outward. */
export interface Fault {
  readonly device: number;
  readonly offset: number;
  readonly length: number;
}

/** `filled`: the range is on disk and in `presence` now (a trap that finds it absent there answers EIO instead). `EIO` / `ENOSPC`: the reader gets an error. */
export type FaultAnswer = 'filled' | 'EIO' | 'ENOSPC';

/**
 * How the kernel tells us of cold reads. A trap answers reads of present blocks by itself; everything else becomes a
 * Fault, answered exactly once. Fail closed: a fault that is never answered must not become zeros.
 */
export interface Trap {
  readonly kind: 'fanotify' | 'fuse';
  /** Starts trapping reads; resolves with the path EROFS must use as `device=`. Must precede the mount. Idempotent. */
  attach(device: TrapDevice): Promise<string>;
  /** Ends trapping: the device is complete, or nothing is mounted on it any more (late readers get EIO). Idempotent. */
  detach(device: TrapDevice): Promise<void>;
  /** Cold reads as they come; ends after `close`. One consumer. */
  readonly faults: AsyncIterable<Fault>;
  /** Ends the reader's wait. Answering twice or after `close` does nothing. */
  answer(fault: Fault, answer: FaultAnswer): void;
  /** Counters since start. */
  stats(): TrapStats;
  /**
   * Denies what is pending, ends trapping and frees every descriptor. Idempotent. Only after every mount is really gone:
   * a lazily unmounted one that is still in use would show holes from then on (see `KernelTrap.abandon`).
   */
  close(): Promise<void>;
}

export interface TrapStats {
  /** Reads answered from present blocks without the main thread. */
  readonly warm: number;
  /** Reads that became a Fault. */
  readonly cold: number;
  /** Reads answered with an error. */
  readonly denied: number;
}

/** A trap of this machine's kernel, with the steps that tie it to the daemon's life. */
export interface KernelTrap extends Trap {
  /** True when this trap took over the readers that a former daemon left waiting. */
  readonly recovered: boolean;
  /**
   * True when a former daemon's trap was lost without its close: reads of the mounts it served may have seen holes (or,
   * with `fuse`, fail). Attach what is known at once, then drop caches, or mount anew.
   */
  readonly lost: boolean;
  /**
   * Starts handing out faults; attach every device known from before first. `knowsAll`: these are all that anyone may
   * still read; a former daemon's event whose file it had no time to look at is then filled in all of them, and denied
   * otherwise. Idempotent.
   */
  start(options?: { knowsAll?: boolean }): Promise<void>;
  /**
   * Instead of `close`, when mounts stay in use: cold reads then wait for the next daemon (`fanotify`) or fail (`fuse`),
   * and never see a hole. Idempotent.
   */
  abandon(): Promise<void>;
}

/** What stops a trap for good: it denies every read from then on, and the daemon should exit to be started anew. */
export type OnFatal = (error: ShoalError) => void;
