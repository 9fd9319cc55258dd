import { access } from 'node:fs/promises';
import { oneAtATime } from '../core/turns.ts';
import { ShoalError } from '../errors.ts';
import { closeRaw, ERRNO, O, openRaw } from '../kernel/libc.ts';
import { attachLoop, type LoopDevice } from '../kernel/loop.ts';
import {
  attachMount,
  createMount,
  type FsParameter,
  MOUNT_ATTR,
  pathNames,
  sysfsPathOf,
  type UnmountOutcome,
  unmount,
} from '../kernel/mount-api.ts';
import { asMountError } from './mount-error.ts';
import { loopBacking, setReadAhead, superblockAlive, superblockNames } from './superblock.ts';

/** KiB: eight times the kernel's default, fewer and larger faults; 8 MiB read in order raised 24 events instead of 65. */
const DEFAULT_READ_AHEAD_KB = 1024;

/**
 * What EROFS reads its files through. `file`: directly, the only way that raises fanotify events. `loop`: loop devices,
 * for complete files and FUSE devices on kernels before 6.12. `file-or-loop`: loop where the kernel refuses `file`.
 */
export type ErofsBacking = 'file' | 'loop' | 'file-or-loop';

/** What to mount: the metadata image, the devices in the order of its device table, and an existing empty directory. */
export interface ErofsMountInit {
  readonly image: string;
  readonly devices: readonly string[];
  readonly target: string;
  /** Default `file`: through a loop device a fanotify trap is silently bypassed and holes read as zeros. */
  readonly backing?: ErofsBacking;
  readonly readAheadKb?: number;
  /**
   * Read the devices past their own page cache, which would hold everything twice. For complete devices only: a direct
   * read waits until what was just written there is on disk. Ignored where the kernel or the backing cannot.
   */
  readonly directIo?: boolean;
  readonly signal?: AbortSignal;
}

/** A mounted EROFS image, and whether anyone still uses its superblock. */
export interface MountedErofs {
  readonly target: string;
  /** The superblock in /sys/fs/erofs (`erofs-3`, `loop7`); undefined when the kernel does not tell. */
  readonly sysfsName?: string;
  /** Takes the mount out of the tree; `detached` when it was busy. MOUNT_FAILED when the kernel refuses. Idempotent. */
  unmount(): Promise<UnmountOutcome>;
  /**
   * True while the superblock lives, mounted or not: an overlay made on it or an open file keeps it. Dropping a trap
   * before this is false gives readers zeros. Also true when it cannot be known.
   */
  inUse(): boolean;
}

// Kernels that do not tell a mount's sysfs name: the name that appears around the mount, when no other of ours runs then.
const inTurn = oneAtATime();

/**
 * Mounts an EROFS image read-only with its devices (design §6; formats §1.12): new mount API, so neither the number of
 * devices nor the length or characters of paths matter. MOUNT_FAILED names the target and repeats the kernel's words;
 * an aborted signal rejects at once and a mount that still comes about is taken down.
 */
export async function mountErofs(init: ErofsMountInit): Promise<MountedErofs> {
  const { signal } = init;
  signal?.throwIfAborted();
  const work = inTurn(() => mountWith(init));
  if (signal === undefined) return await work;
  return await new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    work
      .then(async (mounted) => {
        if (signal.aborted) await mounted.unmount();
        else resolve(mounted);
      })
      .catch(reject)
      .finally(() => signal.removeEventListener('abort', onAbort));
  });
}

/** The handle of a mount made in a former life of the daemon; `sysfsName` as recorded then, else asked of the kernel. */
export function adoptErofs(target: string, sysfsName: string | undefined = sysfsNameAt(target)): MountedErofs {
  // a name of a loop device is used again, so it is ours only while the same image is behind it
  const backing = sysfsName === undefined ? undefined : loopBacking(sysfsName);
  return {
    target,
    ...(sysfsName === undefined ? {} : { sysfsName }),
    async unmount() {
      try {
        return await unmount(target);
      } catch (error) {
        throw asMountError(error, target);
      }
    },
    inUse: () => sysfsName === undefined || superblockAlive(sysfsName, backing),
  };
}

async function mountWith(init: ErofsMountInit): Promise<MountedErofs> {
  const backing = init.backing ?? 'file';
  try {
    init.signal?.throwIfAborted();
    if (backing === 'loop') return await mountLoop(init);
    return await mountFile(init);
  } catch (error) {
    if (backing === 'file-or-loop' && refusesFiles(error)) return await mountLoop(init).catch(rethrow(init.target));
    throw asMountError(error, init.target);
  }
}

const rethrow = (target: string) => (error: unknown) => {
  throw asMountError(error, target);
};

async function mountFile(init: ErofsMountInit): Promise<MountedErofs> {
  using names = pathNames();
  try {
    const source = await names.nameOf(init.image);
    const devices: string[] = [];
    for (const path of init.devices) devices.push(await names.nameOf(path));
    if (init.directIo !== true) return await create(init, source, devices);
    return await create(init, source, devices, undefined, [['directio', true]]).catch(() =>
      create(init, source, devices),
    );
  } catch (error) {
    throw await namingMissing(error, [init.image, ...init.devices]);
  }
}

async function mountLoop(init: ErofsMountInit): Promise<MountedErofs> {
  const loops: LoopDevice[] = [];
  try {
    for (const file of [init.image, ...init.devices]) loops.push(await attachLoop(file));
    const [image, ...devices] = loops.map((loop) => loop.path);
    return await create(init, image as string, devices, loops[0]?.name);
  } finally {
    for (const loop of loops) loop[Symbol.dispose]();
  }
}

async function create(
  init: ErofsMountInit,
  source: string,
  devices: readonly string[],
  loopName?: string,
  extra: readonly FsParameter[] = [],
): Promise<MountedErofs> {
  const parameters: FsParameter[] = [
    ['source', source],
    ['ro', true],
    ...devices.map((path): FsParameter => ['device', path]),
    ...extra,
  ];
  const before = superblockNames();
  // no nosuid, no nodev: setuid programs and device nodes of the image work in containers, as under overlayfs
  const mountFd = await createMount({ fstype: 'erofs', parameters, attributes: MOUNT_ATTR.RDONLY });
  try {
    const name = loopName ?? nameFromKernel(mountFd) ?? onlyNew(before);
    if (name !== undefined) setReadAhead(name, init.readAheadKb ?? DEFAULT_READ_AHEAD_KB);
    init.signal?.throwIfAborted();
    attachMount(mountFd, init.target);
    return adoptErofs(init.target, name);
  } finally {
    closeRaw(mountFd);
  }
}

function sysfsNameAt(target: string): string | undefined {
  const fd = openRaw(target, O.PATH);
  if (fd < 0) return undefined;
  const name = nameFromKernel(fd);
  closeRaw(fd);
  return name;
}

function nameFromKernel(mountFd: number): string | undefined {
  const path = sysfsPathOf(mountFd);
  return path?.startsWith('erofs/') === true ? path.slice('erofs/'.length) : undefined;
}

function onlyNew(before: ReadonlySet<string>): string | undefined {
  const fresh = [...superblockNames()].filter((name) => !before.has(name));
  return fresh.length === 1 ? fresh[0] : undefined;
}

// The kernel says ENOENT and not which of a thousand files.
async function namingMissing(error: unknown, paths: readonly string[]): Promise<unknown> {
  if (!(error instanceof ShoalError) || error.context.errno !== ERRNO.ENOENT) return error;
  for (const path of paths) {
    const missing = await access(path).then(
      () => false,
      () => true,
    );
    if (missing) return new ShoalError('KERNEL_CALL', `${error.message}: ${path} does not exist`, error.context);
  }
  return error;
}

function refusesFiles(error: unknown): boolean {
  return error instanceof ShoalError && error.context.errno === ERRNO.ENOTBLK;
}
