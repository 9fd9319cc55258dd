import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import {
  type ByteString,
  byteStringOf,
  type DirNode,
  emptyDir,
  type FileExtent,
  type InodeMeta,
  type InodeNode,
  type LayerTree,
  type TreeNode,
  WHITEOUT,
} from '../image/layer-tree.ts';
import { type Dirent, parseDirectory } from './dirent.ts';
import { chunkExtents, chunkTableOf, flatBlocks, invalidInode, parseInode, type RawInode } from './inode.ts';
import { CHUNK_INDEX_BYTES, KINDS, LAYOUT_CHUNKED, MAX_SYMLINK_BYTES } from './layout.ts';
import { parseSuperblock, type Superblock } from './superblock.ts';
import { OVERLAY_OPAQUE, OVERLAY_ORIGIN } from './xattr.ts';
import { XattrReader } from './xattr-reader.ts';

/** An image taken apart. */
export interface ErofsImage {
  readonly superblock: Superblock;
  readonly tree: LayerTree;
}

/**
 * Parses an EROFS image of the kind `writeErofs` makes back into a tree, checking everything the kernel would rely on:
 * bounds, sort order, `.` and `..`, file types, link counts. Work is bounded by the image length. Char devices 0:0
 * become whiteouts, overlayfs xattrs become flags. Throws INVALID_LAYER for anything else.
 */
export function readErofs(image: Uint8Array): ErofsImage {
  return new TreeReader(image).read();
}

interface KnownInode {
  readonly raw: RawInode;
  readonly node: TreeNode;
  /** Directory entries (for a directory: 2 + subdirectories) found so far. */
  links: number;
}

class TreeReader {
  readonly #image: Uint8Array;
  readonly #view: DataView;
  readonly #superblock: Superblock;
  readonly #xattrs: XattrReader;
  readonly #known = new Map<number, KnownInode>();
  readonly #dirs: { known: KnownInode; node: DirNode; parentNid: number }[] = [];
  /** Every byte of a sound image belongs to one thing only: overlapping structures run out of this. */
  #budgetBytes: number;

  constructor(image: Uint8Array) {
    this.#image = image;
    this.#view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    this.#superblock = parseSuperblock(image);
    this.#xattrs = new XattrReader(image, this.#superblock.xattrBlock);
    this.#budgetBytes = image.byteLength;
  }

  read(): ErofsImage {
    const root = this.#inode(this.#superblock.rootNid, this.#superblock.rootNid);
    if (root.node.kind !== 'dir') throw invalidInode(root.raw.nid, `root is a ${root.node.kind}`);
    // the list grows while it is walked
    for (const dir of this.#dirs) this.#fillDir(dir);
    for (const { raw, links } of this.#known.values()) {
      if (raw.links !== links) throw invalidInode(raw.nid, `link count ${raw.links}, found ${links}`);
    }
    if (this.#known.size !== this.#superblock.inodes) {
      throw new ShoalError('INVALID_LAYER', `EROFS image of ${this.#superblock.inodes} inodes has ${this.#known.size}`);
    }
    return { superblock: this.#superblock, tree: { root: root.node } };
  }

  #fillDir({ known, node, parentNid }: { known: KnownInode; node: DirNode; parentNid: number }): void {
    const { raw } = known;
    this.#spend(raw, raw.size);
    let dots = 0;
    for (const entry of parseDirectory(flatBlocks(this.#image, raw), raw.nid)) {
      if (entry.name === '.' || entry.name === '..') {
        if (entry.nid !== (entry.name === '.' ? raw.nid : parentNid))
          throw invalidInode(raw.nid, `wrong ${entry.name}`);
        dots += 1;
        continue;
      }
      node.children.set(entry.name, this.#child(known, entry));
    }
    if (dots !== 2) throw invalidInode(raw.nid, 'directory without . and ..');
  }

  #child(dir: KnownInode, entry: Dirent): TreeNode {
    const seen = this.#known.get(entry.nid);
    if (seen?.node.kind === 'dir') throw invalidInode(entry.nid, 'directory has two names');
    const child = seen ?? this.#inode(entry.nid, dir.raw.nid);
    if (KINDS[child.raw.kind].fileType !== entry.fileType) {
      throw invalidInode(entry.nid, `dirent type ${entry.fileType} for a ${child.raw.kind}`);
    }
    if (child.node.kind === 'dir') dir.links += 1;
    else child.links += 1;
    return child.node;
  }

  #inode(nid: number, parentNid: number): KnownInode {
    const raw = parseInode(this.#view, nid);
    const node = this.#node(raw);
    const known = { raw, node, links: node.kind === 'dir' ? 2 : 0 };
    this.#known.set(nid, known);
    if (node.kind === 'dir') this.#dirs.push({ known, node, parentNid });
    return known;
  }

  #node(raw: RawInode): TreeNode {
    const { kind } = raw;
    if (kind === 'char' && raw.payload === 0) return WHITEOUT;
    const meta = this.#meta(raw);
    switch (kind) {
      case 'dir':
        return this.#dir(meta);
      case 'file':
        return { kind, ...meta, size: raw.size, extents: this.#extents(raw) };
      case 'symlink':
        return { kind, ...meta, target: this.#target(raw) };
      case 'char':
      case 'block':
        return { kind, ...meta, ...decodeDevice(raw.payload) } satisfies InodeNode;
      case 'fifo':
      case 'socket':
        return { kind, ...meta };
      default:
        throw invalidInode(raw.nid, `is a ${kind}`);
    }
  }

  #meta(raw: RawInode): InodeMeta {
    const { mode, uid, gid, mtimeSec, mtimeNsec } = raw;
    const meta = { mode, uid, gid, mtimeSec, mtimeNsec };
    if (raw.xattrBytes === 0) return meta;
    this.#spend(raw, raw.xattrBytes);
    return { ...meta, xattrs: this.#xattrs.read(raw) };
  }

  #dir(meta: InodeMeta): DirNode {
    const { xattrs, ...rest } = meta;
    const opaque = xattrs?.has(OVERLAY_OPAQUE) === true;
    xattrs?.delete(OVERLAY_OPAQUE);
    xattrs?.delete(OVERLAY_ORIGIN);
    return { ...emptyDir(xattrs === undefined || xattrs.size === 0 ? rest : { ...rest, xattrs }), opaque };
  }

  #extents(raw: RawInode): FileExtent[] {
    if (raw.size === 0) return [];
    if (raw.layout !== LAYOUT_CHUNKED) throw invalidInode(raw.nid, 'file data in the metadata image');
    this.#spend(raw, chunkTableOf(this.#view, raw).count * CHUNK_INDEX_BYTES);
    return chunkExtents(this.#view, raw).map(({ fileBlock, device, deviceBlock, blocks }) => {
      const room = this.#superblock.devices[device - 1]?.blocks;
      if (room === undefined || deviceBlock + blocks > room)
        throw invalidInode(raw.nid, `data beyond device ${device}`);
      const fileOffset = fileBlock * BLOCK_BYTES;
      const length = Math.min(blocks * BLOCK_BYTES, raw.size - fileOffset);
      return { fileOffset, length, device: device - 1, deviceOffset: deviceBlock * BLOCK_BYTES };
    });
  }

  #target(raw: RawInode): ByteString {
    const block = raw.size > 0 && raw.size <= MAX_SYMLINK_BYTES ? flatBlocks(this.#image, raw)[0] : undefined;
    const target = block === undefined ? ('' as ByteString) : byteStringOf(block);
    if (target === '' || target.includes('\0')) throw invalidInode(raw.nid, `symlink target of ${raw.size} bytes`);
    return target;
  }

  #spend(raw: RawInode, bytes: number): void {
    this.#budgetBytes -= bytes;
    if (this.#budgetBytes < 0) throw invalidInode(raw.nid, 'overlaps other inodes');
  }
}

function decodeDevice(payload: number): { major: number; minor: number } {
  return { major: (payload >>> 8) & 0xfff, minor: (payload & 0xff) | ((payload >>> 12) & 0xfff00) };
}
