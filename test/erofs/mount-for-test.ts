import { execFileSync } from 'node:child_process';
import { hash } from 'node:crypto';
import {
  constants,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { writeErofs } from '../../src/erofs/writer.ts';
import { OVERLAY_PREFIX } from '../../src/erofs/xattr.ts';
import { byteStringOf, emptyDir, type FileNode, type LayerTree } from '../../src/image/layer-tree.ts';
import { type PathFacts, shownValue } from './describe-tree.ts';

const libc = koffi.load('libc.so.6');
const mount = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
);
const umount2 = libc.func('int umount2(const char *target, int flags)');
const llistxattr = libc.func('long llistxattr(uint8_t *path, _Out_ uint8_t *list, size_t size)');
const lgetxattr = libc.func('long lgetxattr(uint8_t *path, const char *name, _Out_ uint8_t *value, size_t size)');

const MS_RDONLY = 1;
const MNT_DETACH = 2;

/** A folder with everything mounted in it; disposing unmounts and removes it. */
export class MountBench {
  readonly folder = mkdtempSync(join(tmpdir(), 'shoal-erofs-mount-'));
  readonly #mounted: string[] = [];

  /** Writes `bytes` to a file of this folder and returns its path. */
  file(name: string, bytes: Uint8Array): string {
    writeFileSync(join(this.folder, name), bytes);
    return join(this.folder, name);
  }

  /** Mounts an EROFS image with its devices on a new folder and returns that folder; throws with the errno. */
  erofs(name: string, image: string, devices: readonly string[]): string {
    return this.#mount(name, image, 'erofs', devices.map((path) => `device=${path}`).join(','));
  }

  /** Mounts an overlay of `lowers`, top first. */
  overlay(name: string, lowers: readonly string[]): string {
    return this.#mount(name, 'overlay', 'overlay', `lowerdir=${lowers.join(':')}`);
  }

  #mount(name: string, source: string, type: string, data: string): string {
    const target = join(this.folder, name);
    mkdirSync(target, { recursive: true });
    if (mount(source, target, type, MS_RDONLY, data) !== 0) throw new Error(`mount ${type}: errno ${koffi.errno()}`);
    this.#mounted.push(target);
    return target;
  }

  [Symbol.dispose](): void {
    for (const target of this.#mounted.reverse()) umount2(target, MNT_DETACH);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Why this machine cannot mount EROFS from a file, or false when it can: the `skip` option of a test. */
export function cannotMount(): string | false {
  if (process.getuid?.() !== 0) return 'needs root to mount EROFS';
  using bench = new MountBench();
  try {
    bench.erofs('probe', bench.file('probe.erofs', writeErofs({ root: emptyDir() }, { devices: [] })), []);
    return false;
  } catch (error) {
    return `needs a kernel with file-backed EROFS and a plain temporary folder (${(error as Error).message})`;
  }
}

/** Why a program is not there, or false. */
export function cannotRun(program: string): string | false {
  try {
    execFileSync(program, ['-V'], { stdio: 'ignore' });
    return false;
  } catch {
    return `needs ${program} (erofs-utils)`;
  }
}

/** What the kernel shows below `folder`, in the shape of `describeTree` with `contentOf`. */
export function describeMount(folder: string): Record<string, PathFacts> {
  const paths: Record<string, PathFacts> = {};
  const first = new Map<string, string>();
  const queue = ['/'];
  for (const path of queue) {
    const real = Buffer.from(folder + path, 'latin1');
    const stat = lstatSync(real, { bigint: true });
    const kind = kindOf(stat.mode, stat.rdev);
    // both numbers: an overlay shows the inode numbers of several file systems
    const identity = `${stat.dev}:${stat.ino}`;
    if (kind !== 'whiteout' && !first.has(identity)) first.set(identity, path);
    const xattrs = kind === 'whiteout' ? [] : xattrsOf(real);
    paths[path] = {
      kind,
      meta: kind === 'whiteout' ? [] : metaOf(stat),
      xattrs: xattrs.filter(([name]) => !name.startsWith(OVERLAY_PREFIX)),
      sameAs: kind === 'whiteout' ? path : (first.get(identity) ?? path),
      rest: restOf(kind, real, stat, xattrs),
    };
    if (kind !== 'dir') continue;
    const names = readdirSync(real, { encoding: 'buffer' }).map(byteStringOf).sort();
    for (const name of names) queue.push(path === '/' ? `/${name}` : `${path}/${name}`);
  }
  return paths;
}

type BigStat = { mode: bigint; uid: bigint; gid: bigint; mtimeNs: bigint; rdev: bigint; size: bigint; ino: bigint };

const KINDS = new Map([
  [constants.S_IFREG, 'file'],
  [constants.S_IFDIR, 'dir'],
  [constants.S_IFCHR, 'char'],
  [constants.S_IFBLK, 'block'],
  [constants.S_IFIFO, 'fifo'],
  [constants.S_IFSOCK, 'socket'],
  [constants.S_IFLNK, 'symlink'],
]);

function kindOf(mode: bigint, rdev: bigint): string {
  const kind = KINDS.get(Number(mode) & constants.S_IFMT) ?? 'unknown';
  return kind === 'char' && rdev === 0n ? 'whiteout' : kind;
}

function metaOf(stat: BigStat): number[] {
  const nsec = ((stat.mtimeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const sec = (stat.mtimeNs - nsec) / 1_000_000_000n;
  return [Number(stat.mode) & 0o7777, Number(stat.uid), Number(stat.gid), Number(sec), Number(nsec)];
}

function xattrsOf(path: Buffer): [string, string][] {
  const cPath = Buffer.concat([path, Buffer.of(0)]);
  const list = Buffer.alloc(65536);
  const listed = Number(llistxattr(cPath, list, list.byteLength));
  if (listed < 0) throw new Error(`llistxattr: errno ${koffi.errno()}`);
  const names = list.toString('latin1', 0, listed).split('\0').slice(0, -1);
  const value = Buffer.alloc(65536);
  const found = names.map((name): [string, string] => {
    const length = Number(lgetxattr(cPath, name, value, value.byteLength));
    if (length < 0) throw new Error(`lgetxattr ${name}: errno ${koffi.errno()}`);
    return [name, shownValue(value.subarray(0, length))];
  });
  return found.sort(([a], [b]) => (a < b ? -1 : 1));
}

function restOf(kind: string, path: Buffer, stat: BigStat, xattrs: [string, string][]): unknown {
  switch (kind) {
    case 'file':
      return [Number(stat.size), hash('sha256', readFileSync(path))];
    case 'dir':
      return xattrs.some(([name, value]) => name === 'trusted.overlay.opaque' && value === '79');
    case 'symlink':
      return byteStringOf(readlinkSync(path, { encoding: 'buffer' }));
    case 'char':
    case 'block': {
      const device = Number(stat.rdev);
      return [(device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00)];
    }
    default:
      return undefined;
  }
}

/** The sha256 of what reading `file` must give when its extents point into `devices`: what `describeMount` shows of it. */
export function contentOf(file: FileNode, devices: readonly Uint8Array[]): string {
  const bytes = Buffer.alloc(file.size);
  for (const { device, deviceOffset, fileOffset, length } of file.extents) {
    // a block is mapped as a whole: what follows the extent in its last block shows too
    const whole = Math.min(Math.ceil(length / 4096) * 4096, file.size - fileOffset);
    bytes.set((devices[device] as Uint8Array).subarray(deviceOffset, deviceOffset + whole), fileOffset);
  }
  return hash('sha256', bytes);
}

/** Writes tree and devices into the bench and mounts them. */
export function mountTree(bench: MountBench, name: string, tree: LayerTree, devices: readonly Uint8Array[]): string {
  const tags = devices.map((bytes, index) => ({ tag: `device-${index}`, blocks: bytes.byteLength / 4096 }));
  const image = bench.file(`${name}.erofs`, writeErofs(tree, { devices: tags }));
  return bench.erofs(
    name,
    image,
    devices.map((bytes, index) => bench.file(`${name}.device-${index}`, bytes)),
  );
}
