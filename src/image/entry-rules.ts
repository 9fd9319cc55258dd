import { ShoalError } from '../errors.ts';
import type { ByteString, DeviceNode, InodeNode } from './layer-tree.ts';

/** NAME_MAX, bytes. */
export const MAX_NAME_BYTES = 255;
/** PATH_MAX, bytes of a path as the layer writes it. */
export const MAX_PATH_BYTES = 4096;
/** Directories above an entry; Linux itself stops at 2048 through PATH_MAX. */
const MAX_DEPTH = 1024;
/** PATH_MAX without the NUL: what readlink can return, and what fits in one page of the EROFS inode. */
const MAX_TARGET_BYTES = 4095;
const MAX_XATTR_NAME_BYTES = 255;
/** XATTR_SIZE_MAX is 65536, but EROFS stores the length in 16 bits. */
const MAX_XATTR_VALUE_BYTES = 65535;
/** All xattrs of one inode; EROFS counts their words in 16 bits (256 KiB). */
const MAX_XATTR_TOTAL_BYTES = 128 * 1024;
/** What an xattr costs besides name and value: header and padding in EROFS. */
const XATTR_OVERHEAD_BYTES = 8;
/** Linux's dev_t: 12 bits of major, 20 of minor. */
const MAX_MAJOR = 0xfff;
const MAX_MINOR = 0xfffff;

/**
 * The components of a path inside a layer: a leading `/` and `./`, empty components and `.` are dropped as tar and
 * containerd do, so the root is `[]`. Throws INVALID_LAYER for `..`, NUL, and whatever Linux could not hold.
 */
export function splitPath(path: ByteString): ByteString[] {
  if (path === '') throw new ShoalError('INVALID_LAYER', 'an entry has an empty name');
  if (path.length > MAX_PATH_BYTES) throw refuse(path, `has a path longer than ${MAX_PATH_BYTES} bytes`);
  if (path.includes('\0')) throw refuse(path, 'has a NUL in its name');
  const parts = path.split('/');
  let count = 0;
  for (const part of parts) {
    if (part === '' || part === '.') continue;
    if (part === '..') throw refuse(path, 'has ".." in its path');
    if (part.length > MAX_NAME_BYTES) throw refuse(path, `has a name longer than ${MAX_NAME_BYTES} bytes`);
    parts[count] = part;
    count += 1;
  }
  if (count > MAX_DEPTH) throw refuse(path, `lies deeper than ${MAX_DEPTH} directories`);
  parts.length = count;
  return parts as ByteString[];
}

/** Throws INVALID_LAYER unless every field of `node` is something that Linux and EROFS can hold. */
export function checkInode(path: ByteString, node: InodeNode): void {
  if (!isUint(node.mode, 0o7777)) throw refuse(path, `has mode ${node.mode}`);
  if (!isUint(node.uid, 0xffffffff)) throw refuse(path, `has uid ${node.uid}`);
  if (!isUint(node.gid, 0xffffffff)) throw refuse(path, `has gid ${node.gid}`);
  if (!Number.isSafeInteger(node.mtimeSec)) throw refuse(path, `has modification time ${node.mtimeSec}`);
  if (!isUint(node.mtimeNsec, 999_999_999)) throw refuse(path, `has ${node.mtimeNsec} ns in its modification time`);
  if (node.kind === 'file') {
    if (!isUint(node.size, Number.MAX_SAFE_INTEGER)) throw refuse(path, `has size ${node.size}`);
  } else if (node.kind === 'symlink') checkTarget(path, node.target);
  else if (node.kind === 'char' || node.kind === 'block') checkDevice(path, node);
}

/**
 * The xattrs that a mounted layer should show: host policy (`security.selinux`), overlayfs internals and namespaces
 * that Linux does not know are dropped. Undefined when none is left. Throws INVALID_LAYER when one breaks a limit.
 */
export function keptXattrs(
  path: ByteString,
  xattrs: Map<ByteString, Uint8Array>,
): Map<ByteString, Uint8Array> | undefined {
  let total = 0;
  const kept = new Map<ByteString, Uint8Array>();
  for (const [name, value] of xattrs) {
    if (!isKept(name)) continue;
    if (name.length > MAX_XATTR_NAME_BYTES || name.includes('\0')) throw refuse(path, 'has an xattr with a bad name');
    if (value.byteLength > MAX_XATTR_VALUE_BYTES) {
      throw refuse(path, `has an xattr of ${value.byteLength} bytes, allowed are ${MAX_XATTR_VALUE_BYTES}`);
    }
    total += XATTR_OVERHEAD_BYTES + name.length + value.byteLength;
    kept.set(name, value);
  }
  if (total > MAX_XATTR_TOTAL_BYTES) throw refuse(path, `has more than ${MAX_XATTR_TOTAL_BYTES} bytes of xattrs`);
  return kept.size === 0 ? undefined : kept;
}

/** INVALID_LAYER about one entry, whose name is shown with escapes and cut when long. */
export function refuse(path: ByteString, why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `entry ${showPath(path)} ${why}`);
}

/** A path of a layer as printable text in quotes: bytes outside printable ASCII become `\xNN`. */
export function showPath(path: ByteString): string {
  const cut = path.length > 200 ? `${path.slice(0, 200)}…` : path;
  return `"${cut.replace(/["\\]|[^ -~…]/g, (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`)}"`;
}

function isKept(name: ByteString): boolean {
  if (name.startsWith('user.')) return name.length > 5;
  if (name.startsWith('security.')) return name.length > 9 && name !== 'security.selinux';
  if (name.startsWith('trusted.')) return name.length > 8 && !name.startsWith('trusted.overlay.');
  return name === 'system.posix_acl_access' || name === 'system.posix_acl_default';
}

function checkTarget(path: ByteString, target: ByteString): void {
  if (target === '') throw refuse(path, 'is a symlink to nothing');
  if (target.length > MAX_TARGET_BYTES) throw refuse(path, `is a symlink longer than ${MAX_TARGET_BYTES} bytes`);
  if (target.includes('\0')) throw refuse(path, 'is a symlink with a NUL');
}

function checkDevice(path: ByteString, node: DeviceNode): void {
  if (!isUint(node.major, MAX_MAJOR) || !isUint(node.minor, MAX_MINOR)) {
    throw refuse(path, `is device ${node.major}:${node.minor}`);
  }
}

function isUint(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
