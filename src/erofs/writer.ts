import { hash } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import type { LayerTree, TreeNode } from '../image/layer-tree.ts';
import { writeChunkIndexes } from './chunks.ts';
import { type DirentTarget, writeDirectory } from './dirent.ts';
import {
  alignUp,
  CHUNK_INDEX_BYTES,
  CHUNK_INDEXES,
  DEVICE_TAG_BYTES,
  EXTENDED_INODE_BYTES,
  KINDS,
  LAYOUT_CHUNKED,
  LAYOUT_INLINE,
  MAX_DEVICES,
  SLOT_BYTES,
  XATTR_HEADER_BYTES,
} from './layout.ts';
import { INODES_PER_SLICE, type PlannedInode, planImage } from './plan.ts';
import { type ErofsDevice, writeSuperblock } from './superblock.ts';
import { writeXattrBody } from './xattr.ts';

export type { ErofsDevice } from './superblock.ts';

/** What an image needs besides its tree. */
export interface ErofsInit {
  /** Extra devices, in mount order; `FileExtent.device` d is the d-th. At most 4096. */
  readonly devices: readonly ErofsDevice[];
  /** 16 bytes; derived from the content when absent, so that the same tree gives the same image. */
  readonly uuid?: Uint8Array;
}

/**
 * The EROFS metadata image of a tree (formats §1): 4096-byte blocks, extended inodes, file data on the extra devices.
 * Blocks the event loop; `writeErofsFile` does not. Throws INVALID_LAYER for what EROFS cannot hold, TOO_LARGE beyond
 * 1 GiB, INVALID_ARGUMENT for a bad `init`.
 */
export function writeErofs(tree: LayerTree, init: ErofsInit): Uint8Array {
  const steps = buildImage(tree, init);
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/**
 * Writes the image to `path` (whole or not at all, synced before it gets its name), leaving the event loop free between
 * slices. The tree must not change meanwhile. Resolves with the image length in bytes. Throws as `writeErofs`, and
 * STORE_IO when the disk refuses.
 */
export async function writeErofsFile(
  tree: LayerTree,
  init: ErofsInit,
  path: string,
  options: { signal: AbortSignal },
): Promise<number> {
  const steps = buildImage(tree, init);
  let step = steps.next();
  while (step.done !== true) {
    await setImmediate();
    options.signal.throwIfAborted();
    step = steps.next();
  }
  const image = step.value;
  const draft = `${path}.draft`;
  try {
    await using file = await open(draft, 'w', 0o600);
    await file.writeFile(image, { signal: options.signal });
    await file.datasync();
    await rename(draft, path);
  } catch (cause) {
    await rm(draft, { force: true });
    options.signal.throwIfAborted();
    throw new ShoalError('STORE_IO', `cannot write EROFS image ${path}`, { cause });
  }
  return image.byteLength;
}

function* buildImage(tree: LayerTree, init: ErofsInit): Generator<void, Uint8Array> {
  checkInit(init);
  const plan = yield* planImage(tree, init.devices);
  const image = new Uint8Array(plan.bytes);
  const view = new DataView(image.buffer);
  const xattrBlock = Math.floor(plan.sharedAt / BLOCK_BYTES);
  const sharedBase = (plan.sharedAt % BLOCK_BYTES) / 4;
  for (const [index, inode] of plan.inodes.entries()) {
    writeInode(view, inode, index + 1);
    if (inode.xattrs !== undefined) {
      writeXattrBody(image, inode.offset + EXTENDED_INODE_BYTES, inode.xattrs, sharedBase);
    }
    writeBody(image, view, inode);
    if (index % INODES_PER_SLICE === 0) yield;
  }
  plan.xattrs.writeShared(image, plan.sharedAt);
  const superblock = {
    inodes: plan.inodes.length,
    blocks: plan.bytes / BLOCK_BYTES,
    rootNid: (plan.inodes[0] as PlannedInode).offset / SLOT_BYTES,
    xattrBlock,
    devices: init.devices,
  };
  writeSuperblock(image, { ...superblock, uuid: init.uuid ?? new Uint8Array(16) });
  if (init.uuid === undefined) writeSuperblock(image, { ...superblock, uuid: contentUuid(image) });
  return image;
}

function checkInit(init: ErofsInit): void {
  if (init.devices.length > MAX_DEVICES) {
    throw new ShoalError('INVALID_ARGUMENT', `${init.devices.length} devices, at most ${MAX_DEVICES}`);
  }
  if (init.uuid !== undefined && init.uuid.byteLength !== 16) {
    throw new ShoalError('INVALID_ARGUMENT', `uuid of ${init.uuid.byteLength} bytes`);
  }
  for (const { tag, blocks } of init.devices) {
    if (Buffer.byteLength(tag) > DEVICE_TAG_BYTES || !(Number.isInteger(blocks) && blocks >= 0 && blocks < 2 ** 32)) {
      throw new ShoalError('INVALID_ARGUMENT', `device ${JSON.stringify(tag)} of ${blocks} blocks`);
    }
  }
}

/** A version 8 (custom) UUID made from the image's own bytes. */
function contentUuid(image: Uint8Array): Uint8Array {
  const uuid = Uint8Array.from(hash('sha256', image, 'buffer').subarray(0, 16));
  uuid[6] = ((uuid[6] as number) & 0x0f) | 0x80;
  uuid[8] = ((uuid[8] as number) & 0x3f) | 0x80;
  return uuid;
}

/** The 64 bytes of an extended inode (formats §1.5). */
function writeInode(view: DataView, inode: PlannedInode, ino: number): void {
  const { node, offset: at } = inode;
  view.setUint16(at, 1 | (inode.layout << 1), true);
  if (inode.xattrBytes > 0) view.setUint16(at + 2, 1 + (inode.xattrBytes - XATTR_HEADER_BYTES) / 4, true);
  view.setUint32(at + 8, inode.size, true);
  view.setUint32(at + 12, Math.floor(inode.size / 2 ** 32), true);
  view.setUint32(at + 16, payload(inode), true);
  view.setUint32(at + 20, ino, true);
  view.setUint32(at + 44, inode.links, true);
  if (node.kind === 'whiteout') {
    view.setUint16(at + 4, KINDS.whiteout.mode, true);
    return;
  }
  view.setUint16(at + 4, KINDS[node.kind].mode | node.mode, true);
  view.setUint32(at + 24, node.uid, true);
  view.setUint32(at + 28, node.gid, true);
  view.setUint32(at + 32, node.mtimeSec, true);
  view.setInt32(at + 36, Math.floor(node.mtimeSec / 2 ** 32), true);
  view.setUint32(at + 40, node.mtimeNsec, true);
}

/** i_u: start block, encoded device number, or chunk format. */
function payload(inode: PlannedInode): number {
  const { node } = inode;
  if (inode.layout === LAYOUT_CHUNKED) return CHUNK_INDEXES | (inode.chunks?.bits ?? 0);
  if (node.kind === 'char' || node.kind === 'block') return encodeDevice(node.major, node.minor);
  if (node.kind === 'whiteout' || node.kind === 'fifo' || node.kind === 'socket') return 0;
  return inode.startBlock;
}

function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

/** What follows inode and xattrs: chunk indexes, directory blocks or a link target. */
function writeBody(image: Uint8Array, view: DataView, inode: PlannedInode): void {
  const { node } = inode;
  const at = inode.offset + EXTENDED_INODE_BYTES + inode.xattrBytes;
  if (node.kind === 'file' && inode.chunks !== undefined) {
    writeChunkIndexes(view, alignUp(at, CHUNK_INDEX_BYTES), node, inode.chunks);
  } else if (node.kind === 'symlink') {
    const target = Buffer.from(node.target, 'latin1');
    image.set(target, inode.layout === LAYOUT_INLINE ? at : inode.startBlock * BLOCK_BYTES);
  } else if (node.kind === 'dir' && inode.targets !== undefined && inode.names !== undefined) {
    const targets = inode.targets;
    writeDirectory(image, view, inode.names, (index) => direntTarget(targets[index] as PlannedInode), {
      blocksAt: inode.startBlock * BLOCK_BYTES,
      tailAt: inode.layout === LAYOUT_INLINE ? at : undefined,
    });
  }
}

function direntTarget(inode: PlannedInode): DirentTarget {
  const kind: TreeNode['kind'] = inode.node.kind;
  return { nid: inode.offset / SLOT_BYTES, fileType: KINDS[kind].fileType };
}
