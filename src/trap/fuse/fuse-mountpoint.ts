import { mkdir, readdir, readlink, rmdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../../errors.ts';
import { setInherited, syscallRawAsync } from '../../kernel/libc.ts';
import type { Logger } from '../../log.ts';

const MNT_DETACH = 2;
/** Kernel readahead on the FUSE files: several MAX_READ_BYTES requests on their way at once. */
const READ_AHEAD_KIB = 1024;
/** Readahead requests the kernel sends at once: its own 12 would make the 13th cold reader wait for another's fetch. */
const MAX_BACKGROUND = 512;
/** A mountpoint can have been mounted over by several crashed daemons; more than this is something else. */
const MAX_LEFTOVERS = 64;

/** Lets the kernel read ahead and ask in parallel as far as it pays. Best effort: without it the trap is only slower. */
export async function tuneFuse(mountpoint: string, log: Logger): Promise<void> {
  const { dev } = await stat(mountpoint);
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  const set = (path: string, value: number): Promise<void> =>
    writeFile(path, String(value)).catch((error: unknown) => {
      log.debug('a FUSE tuning is not available', { path, error: String(error) });
    });
  await set(`/sys/class/bdi/0:${minor}/read_ahead_kb`, READ_AHEAD_KIB);
  const control = `${mountpoint}-control`;
  await mkdir(control, { recursive: true, mode: 0o700 });
  await syscallRawAsync('mount', 'fusectl', control, 'fusectl', 0, null);
  await set(join(control, String(minor), 'max_background'), MAX_BACKGROUND);
  await set(join(control, String(minor), 'congestion_threshold'), MAX_BACKGROUND);
  await detachMount(control);
  await rmdir(control).catch(() => {});
}

/** Unmounts whatever is mounted at `mountpoint`, dead or alive; true when there was something. */
export async function removeLeftovers(mountpoint: string): Promise<boolean> {
  for (let removed = 0; removed < MAX_LEFTOVERS; removed += 1) {
    const result = await syscallRawAsync('umount2', mountpoint, MNT_DETACH);
    if (result < 0) return removed > 0; // EINVAL: nothing mounted there; ENOENT: no such directory
  }
  throw new ShoalError('TRAP_UNAVAILABLE', `${mountpoint} is mounted over more than ${MAX_LEFTOVERS} times`);
}

/** libfuse opens /dev/fuse inheritable: a child that outlived a crash would keep readers waiting for nobody. */
export async function keepFromChildren(): Promise<void> {
  for (const fd of await readdir('/proc/self/fd')) {
    const target = await readlink(`/proc/self/fd/${fd}`).catch(() => ''); // the listing's own descriptor is gone
    if (target === '/dev/fuse') setInherited(Number(fd), false);
  }
}

export async function detachMount(mountpoint: string): Promise<void> {
  await syscallRawAsync('umount2', mountpoint, MNT_DETACH);
}
