import { ShoalError } from '../../errors.ts';
import { refuse, showPath } from '../entry-rules.ts';
import { type ByteString, emptyDir, type InodeMeta, type InodeNode } from '../layer-tree.ts';
import type { ZtocEntry } from './ztoc.ts';

const XATTR_PREFIX = 'SCHILY.xattr.';
const SPARSE_PREFIX = 'GNU.sparse.';
/** RFC 3339 as Go prints it. */
const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])(\d\d):(\d\d))$/;

/**
 * The inode of an entry that is no hard link; a file's extents are still to be filled in. Throws INVALID_LAYER, and
 * UNSUPPORTED_LAYER for sparse files, of which a ztoc does not say where their pieces are.
 */
export function inodeOfEntry(entry: ZtocEntry): InodeNode {
  const { name, size } = entry;
  const meta: InodeMeta = { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid, ...timeOf(entry) };
  const xattrs = xattrsOf(entry);
  if (xattrs !== undefined) meta.xattrs = xattrs;
  switch (entry.type) {
    case 'reg':
      if (size < 0) throw refuse(name, `has size ${size}`);
      return { ...meta, kind: 'file', size, extents: [] };
    case 'dir':
      return emptyDir(meta);
    case 'symlink':
      return { ...meta, kind: 'symlink', target: entry.linkName };
    case 'char':
    case 'block':
      return { ...meta, kind: entry.type, major: entry.devMajor, minor: entry.devMinor };
    case 'fifo':
      return { ...meta, kind: 'fifo' };
    default:
      throw new ShoalError(
        'UNSUPPORTED_LAYER',
        `entry ${showPath(name)} is of the unknown type ${JSON.stringify(entry.type)}`,
      );
  }
}

/** A ztoc has all pax records of an entry; xattrs are among them. */
function xattrsOf({ name, pax }: ZtocEntry): Map<ByteString, Uint8Array> | undefined {
  let xattrs: Map<ByteString, Uint8Array> | undefined;
  for (const [key, value] of pax) {
    if (key.startsWith(SPARSE_PREFIX)) {
      throw new ShoalError('UNSUPPORTED_LAYER', `entry ${showPath(name)} is sparse, which a ztoc does not describe`);
    }
    if (!key.startsWith(XATTR_PREFIX)) continue;
    xattrs ??= new Map();
    xattrs.set(key.slice(XATTR_PREFIX.length) as ByteString, Buffer.from(value, 'latin1'));
  }
  return xattrs;
}

function timeOf({ name, modTime }: ZtocEntry): { mtimeSec: number; mtimeNsec: number } {
  const match = TIME.exec(modTime);
  if (match === null) throw refuse(name, 'has a modification time that is none');
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const [, , , , , , , fraction = '', sign, zoneHours, zoneMinutes] = match;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second);
  const zone = (sign === '-' ? -1 : 1) * (3600 * Number(zoneHours ?? 0) + 60 * Number(zoneMinutes ?? 0));
  return { mtimeSec: Math.floor(date.getTime() / 1000) - zone, mtimeNsec: Number(fraction.padEnd(9, '0')) };
}
