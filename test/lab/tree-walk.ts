/**
 * `node tree-walk.ts DIR` prints a tree, one JSON line per entry, sorted by path: everything a container could tell apart.
 * A process of its own: whoever serves a lazy mount must never read it.
 */
import { createHash } from 'node:crypto';
import { closeSync, lstatSync, openSync, readdirSync, readlinkSync, readSync, type Stats } from 'node:fs';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';

/** One entry. Names are percent-encoded where they are not plain ASCII; fields that a type does not have are absent. */
export interface TreeRow {
  readonly path: string;
  readonly type: string;
  /** Octal, without the type. */
  readonly mode: string;
  readonly owner: string;
  /** Whole seconds. */
  readonly mtime: number;
  /** Name to hex. */
  readonly xattrs: Readonly<Record<string, string>>;
  readonly links?: number;
  /** First path of the same inode, where it has several names. */
  readonly sameAs?: string;
  readonly size?: number;
  readonly sha256?: string;
  readonly target?: string;
  readonly device?: number;
}

const libc = koffi.load('libc.so.6');
const llistxattr = libc.func('long llistxattr(const uint8_t *path, uint8_t *list, size_t size)');
const lgetxattr = libc.func('long lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *value, size_t size)');
const buffer = Buffer.alloc(1 << 20);

function walk(root: string): TreeRow[] {
  const rows: TreeRow[] = [];
  const firstOf = new Map<string, string>();
  const visit = (at: Buffer, path: string): void => {
    const stat = lstatSync(at);
    rows.push(rowOf(at, path, stat, firstOf));
    if (!stat.isDirectory()) return;
    const names = readdirSync(at, { encoding: 'buffer' }).sort(Buffer.compare);
    for (const name of names) {
      const below = Buffer.concat([at, Buffer.from('/'), name]);
      visit(below, `${path === '/' ? '' : path}/${encoded(name)}`);
    }
  };
  visit(Buffer.from(root), '/');
  return rows;
}

function rowOf(at: Buffer, path: string, stat: Stats, firstOf: Map<string, string>): TreeRow {
  const row = {
    path,
    type: typeOf(stat),
    mode: (stat.mode & 0o7777).toString(8),
    owner: `${stat.uid}:${stat.gid}`,
    mtime: Math.floor(stat.mtimeMs / 1000),
    xattrs: xattrsOf(at),
    // The link count of a directory on overlayfs is always 1.
    ...(stat.isDirectory() ? {} : { links: stat.nlink }),
    ...(stat.isFile() ? { size: stat.size, sha256: sha256Of(at) } : {}),
    ...(stat.isSymbolicLink() ? { target: encoded(readlinkSync(at, { encoding: 'buffer' })) } : {}),
    ...(stat.isCharacterDevice() || stat.isBlockDevice() ? { device: stat.rdev } : {}),
  };
  if (stat.isDirectory() || stat.nlink === 1) return row;
  const inode = `${stat.dev}:${stat.ino}`;
  const first = firstOf.get(inode) ?? path;
  firstOf.set(inode, first);
  return { ...row, sameAs: first };
}

function typeOf(stat: Stats): string {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  return stat.isFIFO() ? 'fifo' : 'socket';
}

function xattrsOf(at: Buffer): Record<string, string> {
  const path = Buffer.concat([at, Buffer.alloc(1)]);
  const length = checked(llistxattr(path, buffer, buffer.byteLength), `llistxattr ${at}`);
  const names = buffer.toString('latin1', 0, length).split('\0').slice(0, -1).sort();
  const values: Record<string, string> = {};
  for (const name of names) {
    const got = lgetxattr(path, Buffer.from(`${name}\0`, 'latin1'), buffer, buffer.byteLength);
    values[name] = buffer.toString('hex', 0, checked(got, `lgetxattr ${at} ${name}`));
  }
  return values;
}

function checked(result: number, what: string): number {
  if (result < 0) throw new Error(`${what}: errno ${koffi.errno()}`);
  return result;
}

function sha256Of(at: Buffer): string {
  const hash = createHash('sha256');
  const fd = openSync(at, 'r');
  try {
    for (let got = readSync(fd, buffer); got > 0; got = readSync(fd, buffer)) hash.update(buffer.subarray(0, got));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

function encoded(name: Buffer): string {
  return name.toString('latin1').replace(/[^ -~]|%/g, (char) => `%${char.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const row of walk(process.argv[2] as string)) process.stdout.write(`${JSON.stringify(row)}\n`);
}
