import { BLOCK_BYTES } from '../../../core/block-map.ts';
import { ShoalError } from '../../../errors.ts';
import type { ByteString, FileExtent, FileNode, InodeMeta, InodeNode } from '../../layer-tree.ts';
import { byteStringOf, emptyDir } from '../../layer-tree.ts';
import { createTreeBuilder, type TreeBuilder } from '../../tree-builder.ts';
import { nextTurn } from '../next-turn.ts';
import type { BinaryReader } from './binary.ts';
import { CHUNK, FEATURE, invalidRafs, newChunks, type RafsBlob, type RafsBootstrap, type RafsChunks } from './model.ts';
import { parseV5Super, type V5Super } from './v5-super.ts';
import { append, deviceOf } from './v6-inode.ts';
import { CHUNK_INFO_BYTES, readChunkInfo } from './v6-super.ts';

const INODE_BYTES = 128;
const FLAG_SYMLINK = 0x1;
const FLAG_HARDLINK = 0x2;
const FLAG_XATTR = 0x4;
/** Entries handled before other work gets a turn: about 5 ms. */
const ENTRIES_PER_TURN = 4000;

/** A file whose chunk infos start at `infoAt`. */
interface DataFile {
  readonly path: ByteString;
  readonly node: FileNode;
  readonly infoAt: number;
  readonly count: number;
}

/**
 * Parses a RAFS v5 bootstrap (formats §2.8). Its chunks may lie anywhere in the blob's uncompressed space, so each gets a
 * place of its own on the device. Throws INVALID_LAYER, UNSUPPORTED_LAYER or TOO_LARGE.
 */
export async function parseV5(
  image: BinaryReader,
  { maxEntries, signal }: { maxEntries: number; signal: AbortSignal },
): Promise<RafsBootstrap> {
  const superblock = parseV5Super(image);
  const walk = new Walk(image, superblock, createTreeBuilder({ maxEntries }));
  await walk.run(signal);
  const { blobs } = superblock;
  const chunks = collectChunks(image, blobs.length, walk.files);
  const places = chunks.map((each, index) => each && placesOf(each, blobs[index] as RafsBlob));
  for (const file of walk.files) file.node.extents = extentsOf(image, file, places);
  return { version: 5, blobs, chunks, tree: walk.builder.build() };
}

class Walk {
  readonly builder: TreeBuilder;
  readonly files: DataFile[] = [];
  readonly #image: BinaryReader;
  readonly #super: V5Super;
  readonly #firstPath = new Map<number, ByteString>();
  readonly #seen = new Set<number>();
  /** Inodes of a sound bootstrap don't overlap: what reads more than there is runs out of this. */
  #budgetBytes: number;

  constructor(image: BinaryReader, superblock: V5Super, builder: TreeBuilder) {
    this.#image = image;
    this.#budgetBytes = 2 * image.size;
    this.#super = superblock;
    this.builder = builder;
  }

  async run(signal: AbortSignal): Promise<void> {
    const open: { at: number; path: string }[] = [];
    const root = this.#offsetOf(1);
    const rootNode = this.#node(root, '/' as ByteString);
    if (rootNode.kind !== 'dir') throw invalidRafs(`its root is a ${rootNode.kind}`);
    this.builder.add('/' as ByteString, rootNode);
    open.push({ at: root, path: '' });
    let entries = 0;
    for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
      const first = this.#image.u32(dir.at + 92);
      const count = this.#image.u32(dir.at + 96);
      const names = new Set<string>();
      for (let number = first; number < first + count; number += 1) {
        const at = this.#offsetOf(number);
        const name = this.#nameOf(at);
        if (names.has(name)) throw invalidRafs(`a name twice in the directory at byte ${dir.at}`);
        names.add(name);
        const path = `${dir.path}${name}` as ByteString;
        if (this.#add(at, path)) open.push({ at, path: `${path}/` });
        entries += 1;
        if (entries % ENTRIES_PER_TURN === 0) await nextTurn(signal);
      }
    }
  }

  /** Where an inode is; each number belongs to one directory. */
  #offsetOf(number: number): number {
    const { inodeTable } = this.#super;
    if (number < 1 || number > inodeTable.entries) throw invalidRafs(`inode ${number} of ${inodeTable.entries}`);
    if (this.#seen.has(number)) throw invalidRafs(`inode ${number} has two parents`);
    this.#seen.add(number);
    const at = 8 * this.#image.u32(inodeTable.offset + 4 * (number - 1));
    this.#spend(INODE_BYTES + this.#image.u16(at + 100));
    this.#image.check(at, INODE_BYTES);
    return at;
  }

  #spend(bytes: number): void {
    this.#budgetBytes -= bytes;
    if (this.#budgetBytes < 0) throw invalidRafs('its parts overlap');
  }

  #nameOf(at: number): ByteString {
    const name = byteStringOf(this.#image.slice(at + INODE_BYTES, this.#image.u16(at + 100)));
    if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name))
      throw invalidRafs(`a bad name at byte ${at}`);
    return name;
  }

  /** True for a directory, whose children are still to come. */
  #add(at: number, path: ByteString): boolean {
    const ino = this.#image.u64(at + 40);
    const isHardLink = (this.#image.u64(at + 80) & FLAG_HARDLINK) !== 0 || this.#image.u32(at + 88) > 1;
    const isDir = (this.#image.u32(at + 60) & 0o170000) === 0o040000;
    const first = isHardLink && !isDir ? this.#firstPath.get(ino) : undefined;
    if (first !== undefined) {
      this.builder.addHardLink(path, first);
      return false;
    }
    this.builder.add(path, this.#node(at, path));
    if (isHardLink && !isDir) this.#firstPath.set(ino, path);
    return isDir;
  }

  #node(at: number, path: ByteString): InodeNode {
    const image = this.#image;
    const mode = image.u32(at + 60);
    const flags = image.u64(at + 80);
    const meta: InodeMeta = {
      mode: mode & 0o7777,
      uid: image.u32(at + 48),
      gid: image.u32(at + 52),
      mtimeSec: image.i64(at + 112),
      mtimeNsec: image.u32(at + 108),
    };
    let next = at + INODE_BYTES + alignUp(image.u16(at + 100));
    const targetBytes = (flags & FLAG_SYMLINK) !== 0 ? image.u16(at + 102) : 0;
    const target = image.slice(next, targetBytes);
    next += alignUp(targetBytes);
    if ((flags & FLAG_XATTR) !== 0) {
      const length = image.u64(next);
      meta.xattrs = this.#xattrs(next + 8, length);
      next += 8 + alignUp(length);
    }
    switch (mode & 0o170000) {
      case 0o040000:
        return emptyDir(meta);
      case 0o120000:
        return { ...meta, kind: 'symlink', target: byteStringOf(target) };
      case 0o020000:
        return { ...meta, kind: 'char', ...deviceOf(image.u32(at + 104)) };
      case 0o060000:
        return { ...meta, kind: 'block', ...deviceOf(image.u32(at + 104)) };
      case 0o010000:
        return { ...meta, kind: 'fifo' };
      case 0o140000:
        return { ...meta, kind: 'socket' };
      case 0o100000: {
        const node: FileNode = { ...meta, kind: 'file', size: image.u64(at + 64), extents: [] };
        const count = image.u32(at + 96);
        image.check(next, count * CHUNK_INFO_BYTES);
        if (node.size > 0) this.files.push({ path, node, infoAt: next, count });
        return node;
      }
      default:
        throw invalidRafs(`an inode of mode 0${mode.toString(8)}`);
    }
  }

  #xattrs(at: number, length: number): Map<ByteString, Uint8Array> {
    const found = new Map<ByteString, Uint8Array>();
    this.#image.check(at, length);
    this.#spend(length);
    for (let next = at; next < at + length; ) {
      const size = this.#image.u32(next);
      if (next + 4 + size > at + length) throw invalidRafs(`an xattr of ${size} bytes`);
      const pair = this.#image.slice(next + 4, size);
      const end = pair.indexOf(0);
      if (end < 1) throw invalidRafs('an xattr without a name');
      found.set(byteStringOf(pair.subarray(0, end)), pair.slice(end + 1));
      next += 4 + size;
    }
    return found;
  }
}

function alignUp(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}

/** All chunks that files name, by blob. */
function collectChunks(image: BinaryReader, blobs: number, files: readonly DataFile[]): (RafsChunks | undefined)[] {
  const infos: number[][] = Array.from({ length: blobs }, () => []);
  let total = 0;
  for (const { infoAt, count } of files) {
    total += count;
    // inodes of a sound bootstrap don't overlap
    if (total * CHUNK_INFO_BYTES > image.size) throw invalidRafs('its parts overlap');
    for (let at = infoAt; at < infoAt + count * CHUNK_INFO_BYTES; at += CHUNK_INFO_BYTES) {
      if ((image.u32(at + 36) & CHUNK.hole) !== 0) continue;
      const blob = infos[image.u32(at + 32)];
      if (blob === undefined) throw invalidRafs(`a chunk of blob ${image.u32(at + 32)}`);
      blob.push(at);
    }
  }
  return infos.map((offsets) => {
    if (offsets.length === 0) return undefined;
    const chunks = newChunks(offsets.length);
    for (const [row, at] of offsets.entries()) readChunkInfo(image, at, chunks, row);
    return chunks;
  });
}

/**
 * Gives each chunk its device offset (in `chunks`) and tells it by uncompressed offset. One that depends on nothing but
 * the chunk, so that all images that use the blob agree: its own block, and one more for each chunk before it.
 */
function placesOf(chunks: RafsChunks, blob: RafsBlob): Map<number, number> {
  const places = new Map<number, number>();
  const isAligned = (blob.features & FEATURE.aligned) !== 0;
  const order = Uint32Array.from({ length: chunks.count }, (_, row) => row).sort(
    (a, b) => (chunks.deviceOffset[a] as number) - (chunks.deviceOffset[b] as number),
  );
  let free = 0;
  let fits = true;
  for (const row of order) {
    const offset = chunks.deviceOffset[row] as number;
    if (places.has(offset)) continue;
    const place = isAligned ? offset : offset - (offset % BLOCK_BYTES) + (chunks.index[row] as number) * BLOCK_BYTES;
    fits &&= place >= free && place % BLOCK_BYTES === 0;
    places.set(offset, place);
    free = place + blockBytes(chunks.length[row] as number);
  }
  if (!fits) packTight(chunks, order, places);
  for (let row = 0; row < chunks.count; row += 1) {
    chunks.deviceOffset[row] = places.get(chunks.deviceOffset[row] as number) as number;
  }
  return places;
}

/** For blobs whose chunk numbers don't follow their offsets: one chunk after the other. */
function packTight(chunks: RafsChunks, order: Uint32Array, places: Map<number, number>): void {
  places.clear();
  let free = 0;
  for (const row of order) {
    const offset = chunks.deviceOffset[row] as number;
    if (places.has(offset)) continue;
    places.set(offset, free);
    free += blockBytes(chunks.length[row] as number);
  }
}

function blockBytes(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}

function extentsOf(
  image: BinaryReader,
  { path, node, infoAt, count }: DataFile,
  places: readonly (Map<number, number> | undefined)[],
): FileExtent[] {
  const extents: FileExtent[] = [];
  let at = 0;
  for (let info = infoAt; info < infoAt + count * CHUNK_INFO_BYTES; info += CHUNK_INFO_BYTES) {
    const [length, fileOffset] = [image.u32(info + 44), image.u64(info + 64)];
    if (fileOffset !== at || length === 0)
      throw invalidRafs(`chunks of ${JSON.stringify(path)} that don't make the file`);
    if (fileOffset % BLOCK_BYTES !== 0) {
      throw new ShoalError('UNSUPPORTED_LAYER', `chunks of ${JSON.stringify(path)} do not start at multiples of 4096`);
    }
    at += length;
    if ((image.u32(info + 36) & CHUNK.hole) !== 0) continue;
    const device = image.u32(info + 32);
    const deviceOffset = places[device]?.get(image.u64(info + 56));
    if (deviceOffset === undefined) throw invalidRafs(`a chunk of ${JSON.stringify(path)} that is nowhere`);
    append(extents, { fileOffset, length, device, deviceOffset });
  }
  if (at !== node.size)
    throw invalidRafs(`${JSON.stringify(path)} has ${at} bytes in chunks, but is ${node.size} long`);
  return extents;
}
