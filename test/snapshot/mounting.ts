import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import type { Mount } from '../../src/snapshot/mounts.ts';

/**
 * Mounts what a snapshotter gave, the way containerd does. Overlays go through the new mount API with one `lowerdir+`
 * per layer: an option string for 128 layers does not fit into the page that mount(2) reads.
 */
const libc = koffi.load('libc.so.6');
const mountCall = libc.func('int mount(const char *, const char *, const char *, unsigned long, const char *)');
const umountCall = libc.func('int umount2(const char *, int)');
const syscall = libc.func('long syscall(long, ...)');

const FSOPEN = 430;
const FSCONFIG = 431;
const FSMOUNT = 432;
const MOVE_MOUNT = 429;
const CLOSE = process.arch === 'arm64' ? 57 : 3;
const SET_STRING = 1;
const CREATE = 6;
const MS_RDONLY = 1;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16384;
const MNT_DETACH = 2;
const AT_FDCWD = -100;
const MOVE_MOUNT_F_EMPTY_PATH = 4;

/** Why mounts can't be tested here; undefined when they can. */
export function whyNoMounts(): string | undefined {
  if (process.geteuid?.() !== 0) return 'needs root';
  if (!readFileSync('/proc/filesystems', 'utf8').includes('\toverlay\n')) return 'needs overlayfs in the kernel';
  return undefined;
}

/** Mounts on `target`, one over the other. */
export function mountAll(mounts: readonly Mount[], target: string): void {
  for (const mount of mounts) {
    if (mount.type === 'bind') bind(mount, target);
    else overlay(mount, target);
  }
}

/** Unmounts `target`; `detach` when something may still be open in it. */
export function unmount(target: string, options: { detach?: boolean } = {}): void {
  check(umountCall(target, options.detach === true ? MNT_DETACH : 0), `umount ${target}`);
}

/** Runs `work` while `mounts` are on `target`. */
export async function whileMounted<T>(
  mounts: readonly Mount[],
  target: string,
  work: () => T | Promise<T>,
): Promise<T> {
  mountAll(mounts, target);
  try {
    return await work();
  } finally {
    unmount(target);
  }
}

function bind({ source, options }: Mount, target: string): void {
  check(mountCall(source, target, '', MS_BIND | MS_REC, ''), `bind ${source}`);
  if (options.includes('ro')) check(mountCall('', target, '', MS_REMOUNT | MS_BIND | MS_RDONLY, ''), 'remount ro');
}

function overlay({ options }: Mount, target: string): void {
  const fs = check(syscall(FSOPEN, 'str', 'overlay', 'unsigned int', 0), 'fsopen overlay');
  const set = (key: string, value: string): void => {
    const done = syscall(FSCONFIG, 'int', fs, 'int', SET_STRING, 'str', key, 'str', value, 'int', 0);
    check(done, `fsconfig ${key}=${value}`);
  };
  try {
    for (const option of options) {
      const [key, value] = [option.slice(0, option.indexOf('=')), option.slice(option.indexOf('=') + 1)];
      if (key === 'lowerdir') for (const lower of value.split(':')) set('lowerdir+', lower);
      else set(key, value);
    }
    check(syscall(FSCONFIG, 'int', fs, 'int', CREATE, 'str', null, 'str', null, 'int', 0), 'fsconfig create');
    const made = check(syscall(FSMOUNT, 'int', fs, 'unsigned int', 0, 'unsigned int', 0), 'fsmount');
    try {
      const flags = MOVE_MOUNT_F_EMPTY_PATH;
      const args = ['int', made, 'str', '', 'int', AT_FDCWD, 'str', target, 'unsigned int', flags] as const;
      check(syscall(MOVE_MOUNT, ...args), `move_mount ${target}`);
    } finally {
      syscall(CLOSE, 'int', made);
    }
  } finally {
    syscall(CLOSE, 'int', fs);
  }
}

function check(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}
