import { existsSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';

const EROFS_DIR = '/sys/fs/erofs';
const BDI_DIR = '/sys/class/bdi';

/** Names of the EROFS superblocks this kernel holds, as in /sys/fs/erofs (`erofs-3`, `loop7`); empty without sysfs. */
export function superblockNames(): Set<string> {
  try {
    const names = readdirSync(EROFS_DIR, { withFileTypes: true });
    return new Set(
      names.filter((entry) => entry.isDirectory() && entry.name !== 'features').map((entry) => entry.name),
    );
  } catch {
    return new Set();
  }
}

/**
 * True while the superblock `name` exists: a mount, an overlay on top of it or an open file keeps it. `backing` is the
 * image a loop device must still show for the name to be the same superblock (loop names are reused, `erofs-N` is not).
 */
export function superblockAlive(name: string, backing: string | undefined): boolean {
  if (!existsSync(`${EROFS_DIR}/${name}`) && !existsSync(`${BDI_DIR}/${name}`)) return false;
  return backing === undefined || loopBacking(name) === backing;
}

/** Sets how far ahead the kernel reads on superblock `name`, in KiB; false when sysfs does not let us. */
export function setReadAhead(name: string, sizeKb: number): boolean {
  for (const path of [`${BDI_DIR}/${name}/read_ahead_kb`, `/sys/block/${name}/queue/read_ahead_kb`]) {
    try {
      writeFileSync(path, String(sizeKb));
      return true;
    } catch {
      // the other kind of superblock, or a read-only sysfs: read-ahead stays at the kernel's default
    }
  }
  return false;
}

/** How far ahead the kernel reads on the disk that `path` lies on, in KiB; undefined when sysfs does not tell. */
export function diskReadAheadKb(path: string): number | undefined {
  const { dev } = statSync(path);
  // the kernel's encoding of a device number for user space (linux/kdev_t.h, new_encode_dev)
  const device = `${(dev >>> 8) & 0xfff}:${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
  try {
    // of a partition it is the disk's
    const place = realpathSync(`/sys/dev/block/${device}`);
    for (const queue of [`${place}/queue`, `${place}/../queue`, `${BDI_DIR}/${device}`]) {
      const file = `${queue}/read_ahead_kb`;
      if (existsSync(file)) return Number(readFileSync(file, 'utf8'));
    }
  } catch {
    // a file system without a block device, or no sysfs
  }
  return undefined;
}

/** The file behind loop device `name` as the kernel names it, undefined when it has none. */
export function loopBacking(name: string): string | undefined {
  try {
    return readFileSync(`/sys/block/${name}/loop/backing_file`, 'utf8').trimEnd();
  } catch {
    return undefined;
  }
}
