import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import type { ByteString, DirNode, InodeNode, LayerTree, TreeNode } from '../image/layer-tree.ts';
import { type ChunkShape, chunkShape } from './chunks.ts';
import { directoryBytes } from './dirent.ts';
import {
  alignUp,
  blocksFor,
  CHUNK_INDEX_BYTES,
  DEVICE_SLOT_BYTES,
  DEVICE_TABLE_OFFSET,
  EXTENDED_INODE_BYTES,
  LAYOUT_CHUNKED,
  LAYOUT_INLINE,
  LAYOUT_PLAIN,
  MAX_NAME_BYTES,
  MAX_SYMLINK_BYTES,
  NO_BLOCK,
  SLOT_BYTES,
} from './layout.ts';
import type { ErofsDevice } from './superblock.ts';
import { type XattrEntry, XattrPool, xattrBodyBytes } from './xattr.ts';

/** An inode with its place in the image. */
export interface PlannedInode {
  readonly node: TreeNode;
  /** i_nlink. */
  links: number;
  readonly xattrs: readonly XattrEntry[] | undefined;
  xattrBytes: number;
  /** Only directories: sorted names with `.` and `..`, and the inode of each. */
  readonly names: readonly ByteString[] | undefined;
  readonly targets: PlannedInode[] | undefined;
  /** i_size. */
  readonly size: number;
  readonly chunks: ChunkShape | undefined;
  layout: number;
  /** Byte offset of the inode. */
  offset: number;
  /** First block of data that is not inline. */
  startBlock: number;
}

/** Where everything of an image goes. */
export interface ImagePlan {
  /** In the order of their offsets; the root is first. */
  readonly inodes: readonly PlannedInode[];
  readonly xattrs: XattrPool;
  /** Byte offset of the shared xattrs. */
  readonly sharedAt: number;
  /** Image length, a multiple of 4096. */
  readonly bytes: number;
}

/** Inodes between two points where the work may be interrupted: about 5 ms. */
export const INODES_PER_SLICE = 2048;
/** Bigger tails are inlined only where they fit by themselves: moving the inode to make room would waste more. */
const MOVE_FOR_TAIL_BYTES = 2048;
/** Far above any real image; keeps hostile trees (sparse files of petabytes in 4 KiB pieces) from taking all memory. */
const MAX_IMAGE_BYTES = 2 ** 30;
const BAD_NAME = /[\0/\u0100-\uffff]/;

/** Walks the tree and places every inode; yields now and then so that a caller can interleave other work. */
export function* planImage(tree: LayerTree, devices: readonly ErofsDevice[]): Generator<void, ImagePlan> {
  const xattrs = new XattrPool();
  const inodes = yield* collectInodes(tree.root, devices, xattrs);
  const sharedBytes = xattrs.settle();
  let at = DEVICE_TABLE_OFFSET + devices.length * DEVICE_SLOT_BYTES;
  let blocks = 0;
  for (const [index, inode] of inodes.entries()) {
    at = placeInode(inode, at);
    if (inode.layout !== LAYOUT_CHUNKED) {
      const kept = inode.layout === LAYOUT_INLINE ? Math.floor(inode.size / BLOCK_BYTES) : blocksFor(inode.size);
      inode.startBlock = kept === 0 ? NO_BLOCK : blocks;
      blocks += kept;
    }
    if (at + blocks * BLOCK_BYTES > MAX_IMAGE_BYTES) {
      throw new ShoalError('TOO_LARGE', `file tree needs more than ${MAX_IMAGE_BYTES} bytes of EROFS metadata`);
    }
    if (index % INODES_PER_SLICE === 0) yield;
  }
  const sharedAt = alignUp(at, 4);
  const firstBlock = blocksFor(sharedAt + sharedBytes);
  for (const inode of inodes) if (inode.startBlock !== NO_BLOCK) inode.startBlock += firstBlock;
  return { inodes, xattrs, sharedAt, bytes: (firstBlock + blocks) * BLOCK_BYTES };
}

/** Breadth first, so that the inodes of one directory lie together and depth costs nothing. */
function* collectInodes(
  root: DirNode,
  devices: readonly ErofsDevice[],
  xattrs: XattrPool,
): Generator<void, PlannedInode[]> {
  const inodes = [planInode(root, devices, xattrs)];
  const known = new Map<TreeNode, PlannedInode>([[root, inodes[0] as PlannedInode]]);
  const parents = new Map<PlannedInode, PlannedInode>([[inodes[0] as PlannedInode, inodes[0] as PlannedInode]]);
  // the list grows while it is walked
  for (let index = 0; index < inodes.length; index += 1) {
    const dir = inodes[index] as PlannedInode;
    if (dir.node.kind !== 'dir') continue;
    const targets = dir.targets as PlannedInode[];
    for (const name of dir.names as readonly ByteString[]) {
      const node = dir.node.children.get(name);
      if (node === undefined) {
        targets.push(name === '.' ? dir : (parents.get(dir) as PlannedInode));
        continue;
      }
      let inode = known.get(node);
      if (inode !== undefined && node.kind === 'dir') {
        throw new ShoalError('INVALID_LAYER', `directory ${JSON.stringify(name)} is in the tree twice`);
      }
      if (inode === undefined) {
        inode = planInode(node, devices, xattrs);
        known.set(node, inode);
        inodes.push(inode);
        if (inodes.length % INODES_PER_SLICE === 0) yield;
        if (node.kind === 'dir') parents.set(inode, dir);
      }
      if (node.kind === 'dir') dir.links += 1;
      else inode.links += 1;
      targets.push(inode);
    }
  }
  return inodes;
}

function planInode(node: TreeNode, devices: readonly ErofsDevice[], xattrs: XattrPool): PlannedInode {
  const isDir = node.kind === 'dir';
  const names = isDir ? sortedNames(node) : undefined;
  const whiteouts = isDir && hasWhiteout(node);
  const chunks = node.kind === 'file' ? chunkShape(node, devices) : undefined;
  if (node.kind !== 'whiteout') checkMeta(node);
  return {
    node,
    links: isDir ? 2 : 0,
    xattrs: node.kind === 'whiteout' ? undefined : xattrs.collect(node, { opaque: isDir && node.opaque, whiteouts }),
    xattrBytes: 0,
    names,
    targets: isDir ? [] : undefined,
    size: names !== undefined ? directoryBytes(names) : sizeOf(node),
    chunks,
    layout: chunks !== undefined && chunks.count > 0 ? LAYOUT_CHUNKED : LAYOUT_PLAIN,
    offset: 0,
    startBlock: NO_BLOCK,
  };
}

function sizeOf(node: TreeNode): number {
  if (node.kind === 'file') return node.size;
  if (node.kind !== 'symlink') return 0;
  const { target } = node;
  if (target.length === 0 || target.length > MAX_SYMLINK_BYTES || /[\0\u0100-\uffff]/.test(target)) {
    throw new ShoalError('INVALID_LAYER', `symlink target of ${target.length} bytes, or not a byte string without NUL`);
  }
  return target.length;
}

function sortedNames(dir: DirNode): ByteString[] {
  const names: ByteString[] = ['.' as ByteString, '..' as ByteString];
  for (const name of dir.children.keys()) {
    if (name.length === 0 || name.length > MAX_NAME_BYTES || name === '.' || name === '..' || BAD_NAME.test(name)) {
      throw new ShoalError('INVALID_LAYER', `file name EROFS cannot hold: ${JSON.stringify(name.slice(0, 300))}`);
    }
    names.push(name);
  }
  // by UTF-16 units, which for byte strings is memcmp
  return names.sort();
}

function hasWhiteout(dir: DirNode): boolean {
  for (const child of dir.children.values()) if (child.kind === 'whiteout') return true;
  return false;
}

function checkMeta(node: InodeNode): void {
  const sound =
    fits(node.mode, 0o7777) &&
    fits(node.uid, 0xffffffff) &&
    fits(node.gid, 0xffffffff) &&
    fits(node.mtimeNsec, 999_999_999) &&
    Number.isSafeInteger(node.mtimeSec);
  const device =
    node.kind !== 'char' && node.kind !== 'block' ? true : fits(node.major, 0xfff) && fits(node.minor, 0xfffff);
  if (!sound || !device) {
    const { kind, mode, uid, gid, mtimeSec, mtimeNsec } = node;
    throw new ShoalError(
      'INVALID_LAYER',
      `${kind} with mode ${mode}, owner ${uid}:${gid}, mtime ${mtimeSec}.${mtimeNsec}`,
    );
  }
}

function fits(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}

/** Gives the inode its offset at or after `at`, chooses inline or plain, and returns the end of what it takes. */
function placeInode(inode: PlannedInode, at: number): number {
  inode.xattrBytes = xattrBodyBytes(inode.xattrs);
  const headBytes = EXTENDED_INODE_BYTES + inode.xattrBytes;
  inode.offset = alignUp(at, SLOT_BYTES);
  if (inode.layout === LAYOUT_CHUNKED) {
    return (
      alignUp(inode.offset + headBytes, CHUNK_INDEX_BYTES) + (inode.chunks as ChunkShape).count * CHUNK_INDEX_BYTES
    );
  }
  const tail = inode.node.kind === 'file' ? 0 : inode.size % BLOCK_BYTES;
  if (tail === 0) return inode.offset + headBytes;
  const tailAt = inode.offset + headBytes;
  if ((tailAt % BLOCK_BYTES) + tail > BLOCK_BYTES) {
    // a tail must not cross a block boundary
    if (tail > MOVE_FOR_TAIL_BYTES) return tailAt;
    inode.offset = alignUp(alignUp(tailAt, BLOCK_BYTES) - headBytes, SLOT_BYTES);
  }
  inode.layout = LAYOUT_INLINE;
  return inode.offset + headBytes + tail;
}
