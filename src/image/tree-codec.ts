import { crc32 } from 'node:zlib';
import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import { ByteReader, ByteWriter } from './byte-stream.ts';
import {
  type ByteString,
  type DirNode,
  emptyDir,
  type FileExtent,
  type InodeMeta,
  type InodeNode,
  type LayerTree,
  type TreeNode,
  WHITEOUT,
} from './layer-tree.ts';

const MAGIC = 0x52544853; // "SHTR"
const VERSION = 1;
/** Magic, version, crc32 of the rest. */
const HEADER_BYTES = 12;

/** What an entry holds; the position is stored on disk, new kinds are appended. `link` names an earlier inode. */
const KINDS = ['whiteout', 'link', 'file', 'dir', 'symlink', 'char', 'block', 'fifo', 'socket'] as const;
const KIND_MASK = 0x0f;
const FLAG_OPAQUE = 0x10;
const FLAG_XATTRS = 0x20;
const FLAG_IMPLIED = 0x40;

/** The tree as bytes, for `blobs/<hex>/tree`: depth first, each entry its name and inode; hard links are kept. */
export function encodeTree(tree: LayerTree): Uint8Array {
  const out = new ByteWriter(HEADER_BYTES);
  const known = new Map<TreeNode, number>();
  let inodes = 0;
  writeInode(out, tree.root);
  const stack = [tree.root.children.entries()];
  for (let entries = stack.at(-1); entries !== undefined; entries = stack.at(-1)) {
    const entry = entries.next();
    if (entry.done === true) {
      stack.pop();
      continue;
    }
    const [name, node] = entry.value;
    out.bytes(name);
    const earlier = known.get(node);
    if (node.kind === 'whiteout') {
      out.uint(KINDS.indexOf('whiteout'));
    } else if (earlier !== undefined) {
      out.uint(KINDS.indexOf('link'));
      out.uint(earlier);
    } else {
      writeInode(out, node);
      if (node.kind === 'dir') stack.push(node.children.entries());
      else known.set(node, inodes++);
    }
  }
  const bytes = out.finish();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setUint32(8, crc32(bytes.subarray(HEADER_BYTES)), true);
  return bytes;
}

/** Reads what `encodeTree` wrote. Throws STATE_CORRUPT for anything else. */
export function decodeTree(bytes: Uint8Array): LayerTree {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < HEADER_BYTES || view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) {
    throw corrupt('not a file tree of this version');
  }
  if (view.getUint32(8, true) !== crc32(bytes.subarray(HEADER_BYTES))) throw corrupt('checksum differs');
  const input = new ByteReader(bytes, HEADER_BYTES);
  const known: TreeNode[] = [];
  const root = readInode(input, input.uint());
  if (root.kind !== 'dir') throw corrupt(`root is a ${root.kind}`);
  const stack = [{ dir: root, left: input.uint() }];
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    if (frame.left === 0) {
      stack.pop();
      continue;
    }
    frame.left -= 1;
    const name = input.bytes();
    const node = readNode(input, known);
    if (frame.dir.children.has(name)) throw corrupt('a name is in its directory twice');
    frame.dir.children.set(name, node);
    if (node.kind === 'dir') stack.push({ dir: node, left: input.uint() });
  }
  if (!input.atEnd) throw corrupt('bytes after the tree');
  return { root };
}

function readNode(input: ByteReader, known: TreeNode[]): TreeNode {
  const tag = input.uint();
  const kind = KINDS[tag & KIND_MASK];
  if (kind === 'whiteout') return WHITEOUT;
  if (kind === 'link') {
    const earlier = known[input.uint()];
    if (earlier === undefined) throw corrupt('a hard link to an inode that is not there');
    return earlier;
  }
  const node = readInode(input, tag);
  if (node.kind !== 'dir') known.push(node);
  return node;
}

function writeInode(out: ByteWriter, node: InodeNode): void {
  const xattrs = node.xattrs;
  let tag = KINDS.indexOf(node.kind) | (xattrs === undefined ? 0 : FLAG_XATTRS);
  if (node.kind === 'dir') tag |= (node.opaque ? FLAG_OPAQUE : 0) | (node.implied === true ? FLAG_IMPLIED : 0);
  out.uint(tag);
  out.uint(node.mode);
  out.uint(node.uid);
  out.uint(node.gid);
  // zigzag: times before 1970 stay short
  out.uint(node.mtimeSec < 0 ? -2 * node.mtimeSec - 1 : 2 * node.mtimeSec);
  out.uint(node.mtimeNsec);
  if (xattrs !== undefined) {
    out.uint(xattrs.size);
    for (const [name, value] of xattrs) {
      out.bytes(name);
      out.raw(value);
    }
  }
  if (node.kind === 'dir') {
    out.uint(node.children.size);
  } else if (node.kind === 'file') {
    out.uint(node.size);
    writeExtents(out, node.extents);
  } else if (node.kind === 'symlink') {
    out.bytes(node.target);
  } else if (node.kind === 'char' || node.kind === 'block') {
    out.uint(node.major);
    out.uint(node.minor);
  }
}

/** Reads all of an inode but a directory's number of children. */
function readInode(input: ByteReader, tag: number): InodeNode {
  const kind = KINDS[tag & KIND_MASK];
  const meta = readMeta(input, (tag & FLAG_XATTRS) !== 0);
  switch (kind) {
    case 'dir':
      return {
        ...emptyDir(meta),
        opaque: (tag & FLAG_OPAQUE) !== 0,
        ...((tag & FLAG_IMPLIED) === 0 ? {} : { implied: true as const }),
      } satisfies DirNode;
    case 'file':
      return { kind, ...meta, size: input.uint(), extents: readExtents(input) };
    case 'symlink':
      return { kind, ...meta, target: input.bytes() };
    case 'char':
    case 'block':
      return { kind, ...meta, major: input.uint(), minor: input.uint() };
    case 'fifo':
    case 'socket':
      return { kind, ...meta };
    default:
      throw corrupt(`inode kind ${tag}`);
  }
}

function readMeta(input: ByteReader, withXattrs: boolean): InodeMeta {
  const mode = input.uint();
  const uid = input.uint();
  const gid = input.uint();
  const zigzag = input.uint();
  const mtimeSec = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
  const mtimeNsec = input.uint();
  if (!withXattrs) return { mode, uid, gid, mtimeSec, mtimeNsec };
  const xattrs = new Map<ByteString, Uint8Array>();
  for (let left = input.uint(); left > 0; left -= 1) xattrs.set(input.bytes(), input.raw());
  return { mode, uid, gid, mtimeSec, mtimeNsec, xattrs };
}

function writeExtents(out: ByteWriter, extents: readonly FileExtent[]): void {
  out.uint(extents.length);
  for (const extent of extents) {
    out.uint(extent.fileOffset / BLOCK_BYTES);
    out.uint(extent.length);
    out.uint(extent.device);
    out.uint(extent.deviceOffset / BLOCK_BYTES);
  }
}

function readExtents(input: ByteReader): FileExtent[] {
  const extents: FileExtent[] = [];
  for (let left = input.uint(); left > 0; left -= 1) {
    const fileOffset = input.uint() * BLOCK_BYTES;
    const length = input.uint();
    const device = input.uint();
    extents.push({ fileOffset, length, device, deviceOffset: input.uint() * BLOCK_BYTES });
  }
  return extents;
}

function corrupt(what: string): ShoalError {
  return new ShoalError('STATE_CORRUPT', `stored file tree: ${what}`);
}
