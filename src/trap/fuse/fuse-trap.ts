import { read } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_BYTES } from '../../core/block-map.ts';
import { ShoalError } from '../../errors.ts';
import { ERRNO } from '../../kernel/libc.ts';
import type { Logger } from '../../log.ts';
import { createFaultQueue, type FaultQueue } from '../fault-queue.ts';
import type { Fault, FaultAnswer, KernelTrap, TrapDevice, TrapStats } from '../trap.ts';
import { type FuseAttributes, type FuseMount, type FuseOperations, loadFuseLibrary } from './fuse-library.ts';
import { detachMount, keepFromChildren, removeLeftovers, tuneFuse } from './fuse-mountpoint.ts';

const MODE_DIRECTORY = 0o040500;
const MODE_FILE = 0o100400;
const EPOCH = new Date(0);
/** Largest read libfuse 2 takes. */
const MAX_READ_BYTES = 131_072;

/**
 * fuse-native never closes the libuv handles that live in a mount's memory; were that memory collected, the event loop
 * would follow a dangling pointer. So every mount ever made stays reachable: one per trap.
 */
const undying: FuseMount[] = [];

/** Tuning of the FUSE trap. */
export interface FuseTrapInit {
  /** `<runDir>/fuse` becomes the mountpoint; made 0700 when missing. */
  readonly runDir: string;
}

/** The FUSE trap. */
export interface FuseTrap extends KernelTrap {
  readonly kind: 'fuse';
}

/**
 * Serves each device as the read-only file `<runDir>/fuse/<name>`. When the daemon dies its readers
 * get an error, never holes; the EROFS mounts on those files must be made anew. The daemon must not touch these files
 * from its main thread: it would wait for itself. Throws TRAP_UNAVAILABLE.
 */
export async function createFuseTrap({ log }: { log: Logger }, init: FuseTrapInit): Promise<FuseTrap> {
  const mountpoint = join(init.runDir, 'fuse');
  await mkdir(init.runDir, { recursive: true, mode: 0o700 });
  const lost = await removeLeftovers(mountpoint);
  if (lost) log.warn('a former daemon left a dead FUSE mount; removed it', { mountpoint });
  await mkdir(mountpoint, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error;
  });
  const trap = new FileTrap(log, mountpoint, lost);
  await trap.mount();
  return trap;
}

interface Pending {
  readonly device: TrapDevice;
  readonly into: Buffer;
  readonly at: number;
  readonly length: number;
  readonly done: (code: number) => void;
}

interface Entry {
  readonly device: TrapDevice;
  attached: boolean;
}

class FileTrap implements FuseTrap {
  readonly kind = 'fuse';
  readonly recovered = false;
  readonly lost: boolean;
  readonly faults: FaultQueue = createFaultQueue();
  readonly #log: Logger;
  readonly #mountpoint: string;
  readonly #byName = new Map<string, Entry>();
  readonly #byHandle = new Map<number, Entry>();
  readonly #pending = new Map<Fault, Pending>();
  readonly #stats = { warm: 0, cold: 0, denied: 0 };
  #mount: FuseMount | undefined;
  #lastHandle = 0;
  /** The mount is left alone; fuse-native only lets go of the event loop. */
  #abandoned = false;
  #ending: Promise<void> | undefined;

  constructor(log: Logger, mountpoint: string, lost: boolean) {
    this.#log = log;
    this.#mountpoint = mountpoint;
    this.lost = lost;
  }

  async mount(): Promise<void> {
    const Fuse = loadFuseLibrary();
    Fuse.unmount = (mountpoint, done) => {
      if (this.#abandoned) done(null);
      else detachMount(mountpoint).then(() => done(null), done);
    };
    const options = { kernelCache: true, maxRead: MAX_READ_BYTES, fsname: 'shoal', timeout: false };
    const mount = new Fuse(this.#mountpoint, this.#operations(), options);
    undying.push(mount);
    const mounted = Promise.withResolvers<void>();
    mount.mount((error) => (error === null ? mounted.resolve() : mounted.reject(error)));
    try {
      await mounted.promise;
    } catch (cause) {
      const advice = 'is the fuse module loaded, and does /dev/fuse exist?';
      throw new ShoalError('TRAP_UNAVAILABLE', `cannot mount FUSE at ${this.#mountpoint}: ${advice}`, { cause });
    }
    this.#mount = mount;
    await keepFromChildren();
    await tuneFuse(this.#mountpoint, this.#log);
  }

  async attach(device: TrapDevice): Promise<string> {
    if (this.#ending !== undefined) throw new ShoalError('FAILED_PRECONDITION', 'the FUSE trap is closed');
    const served = this.#byName.get(device.name)?.device === device;
    // nothing of it will ever be cold: the kernel may as well read the file itself
    if (!served && device.presence.complete) return device.path;
    if (!served) this.#byName.set(device.name, { device, attached: true });
    return join(this.#mountpoint, device.name);
  }

  async detach(device: TrapDevice): Promise<void> {
    const entry = this.#byName.get(device.name);
    if (entry?.device !== device) return;
    this.#byName.delete(device.name);
    entry.attached = false;
    // a complete device may still be mounted: open files go on being served
    if (!device.presence.complete) this.#denyPending((pending) => pending.device === device);
  }

  async start(): Promise<void> {}

  answer(fault: Fault, answer: FaultAnswer): void {
    const pending = this.#pending.get(fault);
    if (pending === undefined) return;
    this.#pending.delete(fault);
    if (answer === 'filled' && isPresent(pending.device, pending.at, pending.length)) {
      this.#readDevice(pending);
      return;
    }
    if (answer === 'filled') {
      const facts = { blob: pending.device.name, offset: fault.offset, length: fault.length };
      this.#log.error('a read was answered as filled, but its bytes are not there: denied', facts);
    }
    this.#fail(pending.done, answer === 'ENOSPC' ? ERRNO.ENOSPC : ERRNO.EIO);
  }

  stats(): TrapStats {
    return { ...this.#stats };
  }

  close(): Promise<void> {
    this.#ending ??= this.#close();
    return this.#ending;
  }

  abandon(): Promise<void> {
    this.#abandoned ||= this.#ending === undefined;
    this.#ending ??= this.#close();
    return this.#ending;
  }

  async #close(): Promise<void> {
    this.#stopServing();
    const closed = Promise.withResolvers<void>();
    this.#mount?.unmount((error) => (error === null ? closed.resolve() : closed.reject(error)));
    await closed.promise;
  }

  #stopServing(): void {
    this.#denyPending(() => true);
    this.faults.end();
  }

  #operations(): Partial<FuseOperations> {
    return {
      getattr: (path, done) => {
        const entry = this.#byName.get(path.slice(1));
        if (path === '/') done(0, attributes(MODE_DIRECTORY, BLOCK_BYTES));
        else if (entry === undefined) done(-ERRNO.ENOENT);
        else done(0, attributes(MODE_FILE, entry.device.size));
      },
      readdir: (path, done) => {
        if (path === '/') done(0, [...this.#byName.keys()]);
        else done(-ERRNO.ENOENT);
      },
      open: (path, flags, done) => {
        const entry = this.#byName.get(path.slice(1));
        if (entry === undefined) done(-ERRNO.ENOENT);
        else if ((flags & 3) !== 0) done(-ERRNO.EACCES);
        else done(0, this.#newHandle(entry));
      },
      release: (_path, handle, done) => {
        this.#byHandle.delete(handle);
        done(0);
      },
      read: (_path, handle, into, length, offset, done) => this.#onRead(handle, into, length, offset, done),
      statfs: (_path, done) => done(0, statistics()),
    };
  }

  #newHandle(entry: Entry): number {
    this.#lastHandle += 1;
    this.#byHandle.set(this.#lastHandle, entry);
    return this.#lastHandle;
  }

  #onRead(handle: number, into: Buffer, asked: number, at: number, done: (code: number) => void): void {
    const entry = this.#byHandle.get(handle);
    if (entry === undefined || this.#ending !== undefined) {
      this.#fail(done, ERRNO.EIO);
      return;
    }
    const { device, attached } = entry;
    const length = Math.min(asked, device.size - at);
    if (length <= 0) {
      done(0);
      return;
    }
    const pending: Pending = { device, into, at, length, done };
    if (isPresent(device, at, length)) {
      this.#stats.warm += 1;
      this.#readDevice(pending);
      return;
    }
    if (!attached) {
      this.#fail(done, ERRNO.EIO);
      return;
    }
    this.#stats.cold += 1;
    const offset = at - (at % BLOCK_BYTES);
    const end = Math.ceil((at + length) / BLOCK_BYTES) * BLOCK_BYTES;
    const fault = { device: device.id, offset, length: end - offset };
    this.#pending.set(fault, pending);
    this.faults.push(fault);
  }

  #readDevice({ device, into, at, length, done }: Pending): void {
    read(device.fd, into, 0, length, at, (error, count) => {
      if (error === null && count === length) {
        done(count);
        return;
      }
      const why = error === null ? `only ${count} bytes` : error.message;
      this.#log.error('cannot read a device file', { blob: device.name, offset: at, length, error: why });
      this.#fail(done, ERRNO.EIO);
    });
  }

  #fail(done: (code: number) => void, errno: number): void {
    this.#stats.denied += 1;
    done(-errno);
  }

  #denyPending(which: (pending: Pending) => boolean): void {
    for (const [fault, pending] of this.#pending) {
      if (!which(pending)) continue;
      this.#pending.delete(fault);
      this.#fail(pending.done, ERRNO.EIO);
    }
  }
}

function isPresent(device: TrapDevice, at: number, length: number): boolean {
  return device.presence.hasRange(Math.floor(at / BLOCK_BYTES), Math.ceil((at + length) / BLOCK_BYTES));
}

function attributes(mode: number, size: number): FuseAttributes {
  return { mode, size, uid: 0, gid: 0, nlink: 1, mtime: EPOCH, atime: EPOCH, ctime: EPOCH };
}

function statistics(): Record<string, number> {
  const none = { bfree: 0, bavail: 0, files: 0, ffree: 0, favail: 0, fsid: 0, flag: 0 };
  return { bsize: BLOCK_BYTES, frsize: BLOCK_BYTES, blocks: 0, namemax: 255, ...none };
}
