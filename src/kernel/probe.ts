import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { ShoalError } from '../errors.ts';
import { markPreAccess, openPreContentGroup } from './fanotify.ts';
import { closeRaw, ERRNO, getrlimitNofile, type NofileLimit, O, openFd } from './libc.ts';
import { createSuperblock, type FsParameter, filesystemMagic, openFilesystem, setParameter } from './mount-api.ts';
import { PROBE_BYTES, probeImage } from './probe-image.ts';

/** Whether something works here, and the sentence an operator reads: what was tried, or what is missing and what to do. */
export interface Finding {
  readonly available: boolean;
  readonly reason: string;
}

/** What this kernel can do for a daemon whose files are in one directory. */
export interface KernelReport {
  /** `6.18.44-…` */
  readonly release: string;
  /** Filesystem that holds the directory: only a disk filesystem of this machine can back EROFS and fanotify. */
  readonly filesystem: Finding & { readonly name: string };
  readonly erofs: Finding & { readonly fileBacked: Finding; readonly multiDevice: Finding };
  readonly fanotifyPreContent: Finding;
  readonly fuse: Finding;
  /** Writable overlays with their upper directory here; `append`: any number of layers. */
  readonly overlay: Finding & { readonly append: Finding };
  readonly loop: Finding;
  readonly nofile: NofileLimit & Finding;
}

/** One descriptor per device and per fault in flight, and a peer swarm besides. */
const NOFILE_WANTED = 65_536;

const FILESYSTEMS: Readonly<Record<number, string>> = {
  61267: 'ext4',
  1481003842: 'xfs',
  2435016766: 'btrfs',
  16914836: 'tmpfs',
  2240043254: 'ramfs',
  2035054128: 'overlayfs',
  1702057286: 'fuse',
  26985: 'nfs',
  801189825: 'zfs',
  4076150800: 'f2fs',
  3774210530: 'erofs',
};
const NO_OVERLAY = 'this kernel has no overlay: it needs CONFIG_OVERLAY_FS';
const NO_CAPABILITY = 'mounting needs CAP_SYS_ADMIN: run as root in the initial user namespace';
const FILE_BACKED = 'an image file was mounted without a loop device';
/** Filesystems that raise pre-content events (formats §6.1). */
const TRAPPABLE = new Set(['ext4', 'xfs', 'btrfs']);

/**
 * Finds out by trying, in a temporary directory inside `dir` that is gone afterwards: nothing gets attached, nothing
 * throws for a missing feature. KERNEL_CALL or a file error only when `dir` itself cannot be written.
 */
export async function probeKernel(dir: string): Promise<KernelReport> {
  const filesystem = probeFilesystem(dir);
  return await inLab(dir, async (lab) => ({
    release: release(),
    filesystem,
    erofs: await probeErofs(lab, filesystem.name),
    fanotifyPreContent: probeFanotify(lab, filesystem.name),
    fuse: probeFuse(),
    overlay: await probeOverlay(lab, filesystem.name),
    loop: probeLoop(),
    nofile: probeNofile(),
  }));
}

/** The part of `probeKernel` that decides whether fanotify can be the trap, for a daemon that starts. */
export async function probeFanotifyTrap(dir: string): Promise<Finding> {
  const { name } = probeFilesystem(dir);
  return await inLab(dir, async (lab) => {
    const fanotifyPreContent = probeFanotify(lab, name);
    return fanotifyTrap({ fanotifyPreContent, erofs: await probeErofs(lab, name) });
  });
}

/** Whether fanotify can be the trap: it marks device files, so EROFS must read those itself, without loop devices. */
export function fanotifyTrap(report: Pick<KernelReport, 'fanotifyPreContent' | 'erofs'>): Finding {
  const { fanotifyPreContent, erofs } = report;
  return fanotifyPreContent.available && !erofs.multiDevice.available ? erofs.multiDevice : fanotifyPreContent;
}

async function inLab<T>(dir: string, work: (lab: string) => Promise<T>): Promise<T> {
  const lab = mkdtempSync(join(dir, '.probe-'));
  try {
    return await work(lab);
  } finally {
    rmSync(lab, { recursive: true, force: true });
  }
}

/** The value of a kernel build option (`y`, `m`, `n`), or undefined when this machine does not publish its configuration. */
export function kernelConfig(option: string): string | undefined {
  const text = configText();
  if (text === undefined) return undefined;
  return new RegExp(`^${option}=(.*)$`, 'm').exec(text)?.[1] ?? 'n';
}

function configText(): string | undefined {
  try {
    return gunzipSync(readFileSync('/proc/config.gz')).toString('utf8');
  } catch {
    try {
      return readFileSync(`/boot/config-${release()}`, 'utf8');
    } catch {
      return undefined;
    }
  }
}

function probeFilesystem(dir: string): KernelReport['filesystem'] {
  const magic = filesystemMagic(dir);
  const name = FILESYSTEMS[magic] ?? `filesystem 0x${magic.toString(16)}`;
  if (TRAPPABLE.has(name)) return { name, available: true, reason: `${dir} is on ${name}` };
  return { name, available: false, reason: `${dir} is on ${name}: move --root to ext4, xfs or btrfs on a local disk` };
}

async function probeErofs(lab: string, filesystem: string): Promise<KernelReport['erofs']> {
  const known = attempt('the kernel knows erofs', () => closeRaw(openFilesystem('erofs')), {
    ENODEV: 'this kernel has no erofs: it needs CONFIG_EROFS_FS (5.16 or later)',
    EPERM: NO_CAPABILITY,
    ENOSYS: 'this kernel has no fsopen(2): 5.2 or later is needed',
  });
  if (!known.available) return { ...known, fileBacked: known, multiDevice: known };
  const image = join(lab, 'image');
  const device = join(lab, 'device');
  writeFileSync(image, probeImage());
  writeFileSync(device, Buffer.alloc(PROBE_BYTES));
  const multiDevice = await tryErofs(filesystem, 'an image with an extra device file was mounted', [
    ['source', image],
    ['device', device],
  ]);
  if (multiDevice.available) return { ...known, fileBacked: { available: true, reason: FILE_BACKED }, multiDevice };
  return { ...known, fileBacked: await tryErofs(filesystem, FILE_BACKED, [['source', image]]), multiDevice };
}

async function tryErofs(filesystem: string, success: string, parameters: FsParameter[]): Promise<Finding> {
  return await attemptAsync(success, async () => closeRaw(await createSuperblock({ fstype: 'erofs', parameters })), {
    ENOTBLK: () => notFileBacked(filesystem),
  });
}

function notFileBacked(filesystem: string): string {
  if (['tmpfs', 'ramfs', 'overlayfs'].includes(filesystem)) {
    return `EROFS cannot read its image from ${filesystem}: move --root to ext4, xfs or btrfs on a local disk`;
  }
  const built = kernelConfig('CONFIG_EROFS_FS_BACKED_BY_FILE');
  const why = built === 'n' ? 'it was built without CONFIG_EROFS_FS_BACKED_BY_FILE' : 'that takes 6.12 or later';
  return `this kernel mounts EROFS from block devices only: ${why}`;
}

function probeFanotify(lab: string, filesystem: string): Finding {
  const file = join(lab, 'marked');
  const mark = (): void => {
    const group = openPreContentGroup();
    const fd = openFd(file, O.RDWR);
    try {
      markPreAccess(group, fd);
    } finally {
      closeRaw(fd);
      closeRaw(group);
    }
  };
  writeFileSync(file, '');
  return attempt(`Linux ${release()} has pre-content events`, mark, {
    ENOSYS: 'this kernel has no fanotify: it needs CONFIG_FANOTIFY',
    EPERM: 'fanotify needs CAP_SYS_ADMIN in the initial user namespace',
    EMFILE: 'too many fanotify groups: raise fs.fanotify.max_user_groups',
    EINVAL: () =>
      kernelConfig('CONFIG_FANOTIFY_ACCESS_PERMISSIONS') === 'n'
        ? 'this kernel was built without CONFIG_FANOTIFY_ACCESS_PERMISSIONS'
        : `Linux ${release()} has no pre-content events: 6.15 or later is needed`,
    EOPNOTSUPP: `${filesystem} raises no pre-content events: move --root to ext4, xfs or btrfs on a local disk`,
  });
}

function probeFuse(): Finding {
  return attempt('/dev/fuse opens', () => closeRaw(openFd('/dev/fuse', O.RDWR)), {
    ENOENT: '/dev/fuse is absent: load the fuse module, or give the container the device',
    ENODEV: 'the fuse module is not loaded: modprobe fuse',
    ENXIO: 'the fuse module is not loaded: modprobe fuse',
    EACCES: '/dev/fuse may not be opened: run as root',
    EPERM: '/dev/fuse is forbidden by the device cgroup: give the container the device',
  });
}

async function probeOverlay(lab: string, filesystem: string): Promise<KernelReport['overlay']> {
  const at = (name: string): string => join(lab, name);
  for (const name of ['lower', 'upper', 'work']) mkdirSync(at(name));
  const append = attempt('layers can be added one by one', () => tryAppend(at('lower')), {
    EINVAL: 'this kernel takes all layers in one string: 6.8 or later has lowerdir+',
    ENODEV: NO_OVERLAY,
    EPERM: NO_CAPABILITY,
  });
  const parameters: FsParameter[] = [
    ['source', 'overlay'],
    ['lowerdir', at('lower')],
    ['upperdir', at('upper')],
    ['workdir', at('work')],
  ];
  const whole = await attemptAsync(
    'a writable overlay was mounted',
    async () => closeRaw(await createSuperblock({ fstype: 'overlay', parameters })),
    {
      ENODEV: NO_OVERLAY,
      EPERM: NO_CAPABILITY,
      EINVAL: `${filesystem} cannot hold the upper directory of an overlay: move --root to ext4 or xfs on a local disk`,
    },
  );
  return { ...whole, append };
}

function tryAppend(lower: string): void {
  const context = openFilesystem('overlay');
  try {
    setParameter(context, 'overlay', ['lowerdir+', lower]);
  } finally {
    closeRaw(context);
  }
}

function probeLoop(): Finding {
  return attempt('/dev/loop-control opens', () => closeRaw(openFd('/dev/loop-control', O.RDWR)), {
    ENOENT: '/dev/loop-control is absent: load the loop module (only needed where EROFS cannot mount files)',
    EACCES: '/dev/loop-control may not be opened: run as root',
    EPERM: '/dev/loop-control is forbidden by the device cgroup: give the container the device',
  });
}

function probeNofile(): KernelReport['nofile'] {
  const limit = getrlimitNofile();
  const available = limit.hard >= NOFILE_WANTED;
  const reason = available
    ? `up to ${limit.hard} open files`
    : `at most ${limit.hard} open files, ${NOFILE_WANTED} are advised: set LimitNOFILE`;
  return { ...limit, available, reason };
}

type Advice = Partial<Record<keyof typeof ERRNO, string | (() => string)>>;

function attempt(success: string, work: () => unknown, advice: Advice): Finding {
  try {
    work();
    return { available: true, reason: success };
  } catch (error) {
    return refused(error, advice);
  }
}

async function attemptAsync(success: string, work: () => Promise<unknown>, advice: Advice): Promise<Finding> {
  try {
    await work();
    return { available: true, reason: success };
  } catch (error) {
    return refused(error, advice);
  }
}

function refused(error: unknown, advice: Advice): Finding {
  if (!(error instanceof ShoalError)) throw error;
  const known = Object.entries(advice).find(([name]) => ERRNO[name as keyof typeof ERRNO] === error.context.errno);
  const reason = known?.[1] ?? error.message;
  return { available: false, reason: typeof reason === 'string' ? reason : reason() };
}
