import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import koffi from 'koffi';

/** One entry of an image to be written; names and targets are byte strings. */
export interface RafsEntry {
  /** Without a leading `/`; empty for the root, which comes first. Parents come before what they hold. */
  readonly path: string;
  /** With the type bits. */
  readonly mode: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtimeSec?: number;
  readonly mtimeNsec?: number;
  readonly xattrs?: ReadonlyMap<string, Uint8Array>;
  readonly content?: Uint8Array;
  readonly target?: string;
  readonly rdev?: number;
  /** Entries with the same one are one inode. */
  readonly inode?: string;
  /** The blob its data goes to; 0 unless given. */
  readonly blob?: number;
}

/** Type bits of a mode. */
export const TYPE = { dir: 0o040000, file: 0o100000, symlink: 0o120000, char: 0o020000, fifo: 0o010000 } as const;

/** The entries of a directory on disk, as `nydus-image create` takes them. Never of a lazy mount of this process. */
export function entriesOfDirectory(root: string): RafsEntry[] {
  const entries: RafsEntry[] = [];
  const visit = (at: Buffer, path: string): void => {
    const stat = lstatSync(at, { bigint: true });
    const mode = Number(stat.mode);
    const isFile = (mode & 0o170000) === TYPE.file;
    const isSymlink = (mode & 0o170000) === TYPE.symlink;
    entries.push({
      path,
      mode,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtimeSec: Number(stat.mtimeNs / 1_000_000_000n),
      mtimeNsec: Number(stat.mtimeNs % 1_000_000_000n),
      xattrs: xattrsOf(at),
      ...(isFile ? { content: readFileSync(at) } : {}),
      ...(isSymlink ? { target: readlinkSync(at, { encoding: 'buffer' }).toString('latin1') } : {}),
      ...(stat.rdev === 0n ? {} : { rdev: Number(stat.rdev) }),
      ...((mode & 0o170000) !== TYPE.dir && stat.nlink > 1n ? { inode: String(stat.ino) } : {}),
    });
    if ((mode & 0o170000) !== TYPE.dir) return;
    for (const name of readdirSync(at, { encoding: 'buffer' })) {
      const below = Buffer.concat([at, Buffer.from('/'), name]);
      visit(below, path === '' ? name.toString('latin1') : `${path}/${name.toString('latin1')}`);
    }
  };
  visit(Buffer.from(root), '');
  return entries;
}

const libc = koffi.load('libc.so.6');
const llistxattr = libc.func('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
const lgetxattr = libc.func('long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)');
const buffer = Buffer.alloc(1 << 17);

function xattrsOf(at: Buffer): Map<string, Uint8Array> {
  const path = Buffer.concat([at, Buffer.alloc(1)]);
  const found = new Map<string, Uint8Array>();
  const length = llistxattr(path, buffer, buffer.byteLength) as number;
  for (const name of buffer.toString('latin1', 0, Math.max(0, length)).split('\0').slice(0, -1)) {
    if (name.startsWith('trusted.overlay.')) continue;
    const got = lgetxattr(path, Buffer.from(`${name}\0`, 'latin1'), buffer, buffer.byteLength) as number;
    if (got >= 0) found.set(name, Uint8Array.from(buffer.subarray(0, got)));
  }
  return found;
}
