import { ShoalError } from '../errors.ts';
import type { ByteString, InodeMeta } from '../image/layer-tree.ts';
import {
  alignUp,
  MAX_NAME_BYTES,
  MAX_SHARED_XATTRS,
  MAX_XATTR_BODY_BYTES,
  MAX_XATTR_VALUE_BYTES,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
} from './layout.ts';

/** Xattr namespaces EROFS knows; the position is e_name_index (formats §1.8). Lustre (5) is not ours. */
export const XATTR_PREFIXES: readonly (string | undefined)[] = [
  undefined,
  'user.',
  'system.posix_acl_access',
  'system.posix_acl_default',
  'trusted.',
  undefined,
  'security.',
];

/** Names that belong to overlayfs; an image must not bring its own. */
export const OVERLAY_PREFIX = 'trusted.overlay.';
export const OVERLAY_OPAQUE = 'trusted.overlay.opaque' as ByteString;
/** Without it readdir shows the whiteouts of a directory that is not merged with a lower one. */
export const OVERLAY_ORIGIN = 'trusted.overlay.origin' as ByteString;

const ACL_INDEXES = [2, 3];
const OPAQUE_VALUE = Uint8Array.of(0x79);
const ORIGIN_VALUE = new Uint8Array(0);
/** Longer values go to the shared area even when used once, so that they don't push inodes apart. */
const SHARE_ABOVE_BYTES = 1024;

/** One name and value, shared by all inodes that carry it. */
export interface XattrEntry {
  readonly index: number;
  /** The name without its prefix. */
  readonly suffix: string;
  readonly value: Uint8Array;
  uses: number;
  /** Byte offset of the entry in the shared area, or undefined when it is stored with its inodes. */
  sharedOffset: number | undefined;
}

/** Collects the xattrs of all inodes, decides which are shared, and writes them. */
export class XattrPool {
  readonly #entries = new Map<string, XattrEntry>();
  readonly #bySource = new Map<Map<ByteString, Uint8Array>, readonly XattrEntry[]>();
  #sharedBytes = 0;

  /**
   * The entries of one inode, counted as used; undefined when it has none. Names overlayfs owns and namespaces no
   * kernel accepts are left out. Throws INVALID_LAYER for a name or value EROFS cannot hold.
   */
  collect(meta: InodeMeta, overlay: { opaque: boolean; whiteouts: boolean }): readonly XattrEntry[] | undefined {
    let entries: readonly XattrEntry[] = meta.xattrs === undefined ? [] : this.#ofMap(meta.xattrs);
    if (overlay.opaque) entries = [...entries, this.#intern(OVERLAY_OPAQUE, OPAQUE_VALUE) as XattrEntry];
    if (overlay.whiteouts) entries = [...entries, this.#intern(OVERLAY_ORIGIN, ORIGIN_VALUE) as XattrEntry];
    if (entries.length === 0) return undefined;
    for (const entry of entries) entry.uses += 1;
    return entries;
  }

  /** Ends collecting: gives every entry worth sharing its place in the shared area. Returns the area's bytes. */
  settle(): number {
    for (const entry of this.#entries.values()) {
      if (entry.uses < 2 && entryBytes(entry) <= SHARE_ABOVE_BYTES) continue;
      entry.sharedOffset = this.#sharedBytes;
      this.#sharedBytes += entryBytes(entry);
    }
    return this.#sharedBytes;
  }

  /** Writes the shared area at byte `at` (a multiple of 4). */
  writeShared(image: Uint8Array, at: number): void {
    for (const entry of this.#entries.values()) {
      if (entry.sharedOffset !== undefined) writeEntry(image, at + entry.sharedOffset, entry);
    }
  }

  #ofMap(xattrs: Map<ByteString, Uint8Array>): readonly XattrEntry[] {
    let entries = this.#bySource.get(xattrs);
    if (entries === undefined) {
      const found: XattrEntry[] = [];
      for (const [name, value] of xattrs) {
        const entry = name.startsWith(OVERLAY_PREFIX) ? undefined : this.#intern(name, value);
        if (entry !== undefined) found.push(entry);
      }
      entries = found;
      this.#bySource.set(xattrs, entries);
    }
    return entries;
  }

  #intern(name: ByteString, value: Uint8Array): XattrEntry | undefined {
    const index = prefixIndex(name);
    if (index === undefined) return undefined;
    checkXattr(name, value);
    const key = `${name}\0${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('latin1')}`;
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      const suffix = name.slice((XATTR_PREFIXES[index] as string).length);
      entry = { index, suffix, value, uses: 0, sharedOffset: undefined };
      this.#entries.set(key, entry);
    }
    return entry;
  }
}

function prefixIndex(name: ByteString): number | undefined {
  for (const [index, prefix] of XATTR_PREFIXES.entries()) {
    if (prefix === undefined || !name.startsWith(prefix)) continue;
    if (ACL_INDEXES.includes(index) ? name === prefix : name.length > prefix.length) return index;
  }
  return undefined;
}

function checkXattr(name: ByteString, value: Uint8Array): void {
  if (name.length > MAX_NAME_BYTES || /[\0\u0100-\uffff]/.test(name)) {
    throw new ShoalError('INVALID_LAYER', `xattr name of ${name.length} bytes: ${JSON.stringify(name.slice(0, 80))}`);
  }
  if (value.byteLength > MAX_XATTR_VALUE_BYTES) {
    throw new ShoalError('INVALID_LAYER', `xattr ${name} has ${value.byteLength} bytes, at most 65535 fit`);
  }
}

function entryBytes(entry: XattrEntry): number {
  return alignUp(XATTR_ENTRY_BYTES + entry.suffix.length + entry.value.byteLength, 4);
}

/** Bytes between inode and data that `entries` take; call after `settle`. Throws INVALID_LAYER when they don't fit. */
export function xattrBodyBytes(entries: readonly XattrEntry[] | undefined): number {
  if (entries === undefined) return 0;
  let bytes = XATTR_HEADER_BYTES;
  let shared = 0;
  for (const entry of entries) {
    if (entry.sharedOffset !== undefined && shared < MAX_SHARED_XATTRS) {
      shared += 1;
      bytes += 4;
    } else {
      bytes += entryBytes(entry);
    }
  }
  if (bytes > MAX_XATTR_BODY_BYTES) throw new ShoalError('INVALID_LAYER', `${bytes} bytes of xattrs on one inode`);
  return bytes;
}

/** Writes what `xattrBodyBytes` measured at byte `at`; `sharedBase` is the first shared id (byte offset / 4). */
export function writeXattrBody(
  image: Uint8Array,
  at: number,
  entries: readonly XattrEntry[],
  sharedBase: number,
): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const shared = entries.filter((entry) => entry.sharedOffset !== undefined).slice(0, MAX_SHARED_XATTRS);
  view.setUint8(at + 4, shared.length);
  let next = at + XATTR_HEADER_BYTES;
  for (const entry of shared) {
    view.setUint32(next, sharedBase + (entry.sharedOffset as number) / 4, true);
    next += 4;
  }
  let skipped = 0;
  for (const entry of entries) {
    if (entry.sharedOffset !== undefined && skipped < shared.length) skipped += 1;
    else next = writeEntry(image, next, entry);
  }
}

function writeEntry(image: Uint8Array, at: number, entry: XattrEntry): number {
  image[at] = entry.suffix.length;
  image[at + 1] = entry.index;
  image[at + 2] = entry.value.byteLength & 0xff;
  image[at + 3] = entry.value.byteLength >> 8;
  image.set(Buffer.from(entry.suffix, 'latin1'), at + XATTR_ENTRY_BYTES);
  image.set(entry.value, at + XATTR_ENTRY_BYTES + entry.suffix.length);
  return at + entryBytes(entry);
}
