import { BLOCK_BYTES } from '../core/block-map.ts';
import { type ByteString, byteStringOf } from '../image/layer-tree.ts';
import { invalidInode, type RawInode } from './inode.ts';
import { alignUp, XATTR_ENTRY_BYTES, XATTR_HEADER_BYTES } from './layout.ts';
import { XATTR_PREFIXES } from './xattr.ts';

interface ParsedEntry {
  readonly name: ByteString;
  readonly value: Uint8Array;
  readonly end: number;
}

/** Reads the xattrs of inodes (formats §1.8); shared ones are parsed once. */
export class XattrReader {
  readonly #image: Uint8Array;
  readonly #view: DataView;
  readonly #sharedAt: number;
  readonly #shared = new Map<number, ParsedEntry>();

  constructor(image: Uint8Array, xattrBlock: number) {
    this.#image = image;
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    this.#sharedAt = xattrBlock * BLOCK_BYTES;
  }

  /** Full names and values of an inode that has an ibody. Throws INVALID_LAYER. */
  read(inode: RawInode): Map<ByteString, Uint8Array> {
    const end = inode.xattrAt + inode.xattrBytes;
    const found = new Map<ByteString, Uint8Array>();
    const shared = this.#view.getUint8(inode.xattrAt + 4);
    let at = inode.xattrAt + XATTR_HEADER_BYTES;
    if (at + 4 * shared > end) throw invalidInode(inode.nid, `${shared} shared xattrs`);
    for (const last = at + 4 * shared; at < last; at += 4) {
      const entry = this.#sharedEntry(inode, this.#view.getUint32(at, true));
      found.set(entry.name, entry.value);
    }
    while (at < end) {
      const entry = this.#parse(inode, at, end);
      if (found.has(entry.name)) throw invalidInode(inode.nid, 'has an xattr twice');
      found.set(entry.name, entry.value);
      at = entry.end;
    }
    return found;
  }

  #sharedEntry(inode: RawInode, id: number): ParsedEntry {
    let entry = this.#shared.get(id);
    if (entry === undefined) {
      entry = this.#parse(inode, this.#sharedAt + 4 * id, this.#image.byteLength);
      this.#shared.set(id, entry);
    }
    return entry;
  }

  #parse(inode: RawInode, at: number, limit: number): ParsedEntry {
    if (at + XATTR_ENTRY_BYTES > limit) throw invalidInode(inode.nid, `xattr at ${at}`);
    const nameBytes = this.#view.getUint8(at);
    const prefix = XATTR_PREFIXES[this.#view.getUint8(at + 1)];
    const valueBytes = this.#view.getUint16(at + 2, true);
    const nameAt = at + XATTR_ENTRY_BYTES;
    const valueAt = nameAt + nameBytes;
    if (prefix === undefined || valueAt + valueBytes > limit) throw invalidInode(inode.nid, `xattr at ${at}`);
    const name = (prefix + byteStringOf(this.#image.subarray(nameAt, valueAt))) as ByteString;
    const value = this.#image.slice(valueAt, valueAt + valueBytes);
    return { name, value, end: alignUp(valueAt + valueBytes, 4) };
  }
}
