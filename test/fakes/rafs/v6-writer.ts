import { CODEC_NUMBERS, type RafsOptions, type WrittenBlob, type WrittenChunk } from './blob-writer.ts';
import { type RafsEntry, TYPE } from './entries.ts';
import type { FileChunks } from './image.ts';

const BLOCK = 4096;
const FS_FLAGS = { none: 0x1, lz4_block: 0x2, gzip: 0x40, zstd: 0x80 } as const;
const FILE_TYPES: Readonly<Record<number, number>> = {
  16807: 1,
  9604: 2,
  4802: 3,
  14406: 4,
  2401: 5,
  26411: 6,
  21609: 7,
};
const PREFIXES: readonly [string, number][] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
];

interface Inode {
  readonly entry: RafsEntry;
  links: number;
  offset: number;
  readonly xattrs: Buffer;
  /** Directories: their blocks; `.` and `..` included. */
  blocks: Buffer;
  blockAddress: number;
  /** Children by name; directories only. */
  readonly children: { name: string; inode: Inode }[];
  parent: Inode | undefined;
}

/** A RAFS v6 bootstrap (formats §2.1–2.4): an EROFS image with blob and chunk tables in front of the inodes. */
export function bootstrapV6(
  entries: readonly RafsEntry[],
  files: FileChunks,
  blobs: readonly WrittenBlob[],
  options: RafsOptions,
): Buffer {
  const chunkTable = options.chunkTable ? blobs.flatMap(({ chunks }) => chunks) : [];
  const blobTableAt = align(1408 + 128 * blobs.length);
  const chunkTableAt = align(blobTableAt + 256 * blobs.length);
  const metaAt = align(chunkTableAt + 80 * chunkTable.length);
  const inodes = makeInodes(entries);
  let at = metaAt;
  for (const inode of inodes) {
    const length = 64 + inode.xattrs.byteLength + bodyBytes(inode, files, blobs, options);
    // the tail of an inline symlink must not cross a block
    const tailAt = at + 64 + inode.xattrs.byteLength;
    const isSymlink = typeOf(inode) === TYPE.symlink;
    if (isSymlink && Math.floor(tailAt / BLOCK) !== Math.floor((at + length - 1) / BLOCK)) at = align(at);
    inode.offset = at;
    at = Math.ceil((at + length) / 32) * 32;
  }
  at = align(at);
  const nid = (inode: Inode): number => (inode.offset - metaAt) / 32;
  for (const inode of inodes) {
    if (typeOf(inode) !== TYPE.dir) continue;
    inode.blocks = directoryBlocks(inode, nid);
    inode.blockAddress = at / BLOCK;
    at += align(inode.blocks.byteLength);
  }
  const image = Buffer.alloc(at);
  writeSuper(image, {
    blobs,
    options,
    metaAt,
    rootNid: nid(inodes[0] as Inode),
    inodes: inodes.length,
    chunkTableAt,
    blobTableAt,
    chunkCount: chunkTable.length,
  });
  for (const [index, blob] of blobs.entries())
    writeBlob(image, 1408 + 128 * index, blobTableAt + 256 * index, blob, index, options);
  // nydus-image sorts its chunk map by digest
  const sorted = [...chunkTable].sort((a, b) => Buffer.compare(a.digest, b.digest));
  for (const [index, chunk] of sorted.entries()) writeChunkInfo(image, chunkTableAt + 80 * index, chunk, 0);
  for (const [index, inode] of inodes.entries()) writeInode(image, inode, index + 1, { files, blobs, options });
  return image;
}

function makeInodes(entries: readonly RafsEntry[]): Inode[] {
  const byPath = new Map<string, Inode>();
  const byInode = new Map<string, Inode>();
  const inodes: Inode[] = [];
  for (const entry of entries) {
    const cut = entry.path.lastIndexOf('/');
    const parent = entry.path === '' ? undefined : byPath.get(cut < 0 ? '' : entry.path.slice(0, cut));
    const name = entry.path.slice(cut + 1);
    let inode = entry.inode === undefined ? undefined : byInode.get(entry.inode);
    if (inode === undefined) {
      inode = {
        entry,
        links: 0,
        offset: 0,
        xattrs: xattrBody(entry),
        blocks: Buffer.alloc(0),
        blockAddress: 0,
        children: [],
        parent,
      };
      inodes.push(inode);
      if (entry.inode !== undefined) byInode.set(entry.inode, inode);
    }
    byPath.set(entry.path, inode);
    parent?.children.push({ name, inode });
    if (typeOf(inode) === TYPE.dir) {
      inode.links += 2;
      if (parent !== undefined) parent.links += 1;
    } else inode.links += 1;
  }
  return inodes;
}

function typeOf({ entry }: Inode): number {
  return entry.mode & 0o170000;
}

function bodyBytes(inode: Inode, files: FileChunks, blobs: readonly WrittenBlob[], options: RafsOptions): number {
  if (typeOf(inode) === TYPE.symlink) return inode.entry.target?.length ?? 0;
  if (typeOf(inode) !== TYPE.file || (inode.entry.content?.byteLength ?? 0) === 0) return 0;
  const { indexes } = chunkIndexes(inode.entry, files, blobs, options);
  return 8 + 8 * indexes.length;
}

/** One index for a file whose chunks lie side by side, else one per chunk. */
function chunkIndexes(
  entry: RafsEntry,
  files: FileChunks,
  blobs: readonly WrittenBlob[],
  options: RafsOptions,
): { bits: number; indexes: WrittenChunk[] } {
  const { chunks } = blobs[entry.blob ?? 0] as WrittenBlob;
  const own = (files.get(entry) as readonly number[]).map((index) => chunks[index] as WrittenChunk);
  const isContiguous = own.every(
    (chunk, index) =>
      index === 0 ||
      chunk.uncompressedOffset === (own[0] as WrittenChunk).uncompressedOffset + index * options.chunkSize,
  );
  const bytes = isContiguous ? (entry.content as Uint8Array).byteLength : options.chunkSize;
  const bits = Math.ceil(Math.log2(Math.max(1, Math.ceil(bytes / BLOCK))));
  return { bits, indexes: isContiguous ? own.slice(0, 1) : own };
}

function directoryBlocks(inode: Inode, nid: (inode: Inode) => number): Buffer {
  const all = [{ name: '.', inode }, { name: '..', inode: inode.parent ?? inode }, ...inode.children].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
  const blocks: Buffer[] = [];
  for (let from = 0; from < all.length; ) {
    let [to, used] = [from, 0];
    while (to < all.length && used + 12 + (all[to] as { name: string }).name.length <= BLOCK) {
      used += 12 + (all[to] as { name: string }).name.length;
      to += 1;
    }
    const block = Buffer.alloc(to < all.length ? BLOCK : used);
    let nameAt = 12 * (to - from);
    for (const [index, { name, inode: child }] of all.slice(from, to).entries()) {
      block.writeBigUInt64LE(BigInt(nid(child)), 12 * index);
      block.writeUInt16LE(nameAt, 12 * index + 8);
      block[12 * index + 10] = FILE_TYPES[typeOf(child)] as number;
      block.write(name, nameAt, 'latin1');
      nameAt += name.length;
    }
    blocks.push(block);
    from = to;
  }
  return Buffer.concat(blocks);
}

function xattrBody({ xattrs }: RafsEntry): Buffer {
  if (xattrs === undefined || xattrs.size === 0) return Buffer.alloc(0);
  const parts = [Buffer.alloc(12)];
  for (const [name, value] of xattrs) {
    const [prefix, index] = PREFIXES.find(([each]) => name.startsWith(each)) as [string, number];
    const rest = Buffer.from(name.slice(prefix.length), 'latin1');
    const head = Buffer.from([rest.byteLength, index, value.byteLength & 0xff, value.byteLength >> 8]);
    const length = 4 + rest.byteLength + value.byteLength;
    parts.push(Buffer.concat([head, rest, value, Buffer.alloc((4 - (length % 4)) % 4)]));
  }
  return Buffer.concat(parts);
}

function writeInode(
  image: Buffer,
  inode: Inode,
  number: number,
  { files, blobs, options }: { files: FileChunks; blobs: readonly WrittenBlob[]; options: RafsOptions },
): void {
  const { entry, offset: at, xattrs } = inode;
  const type = typeOf(inode);
  const content = entry.content?.byteLength ?? 0;
  const isChunked = type === TYPE.file && content > 0;
  const layout = isChunked ? 4 : type === TYPE.symlink ? 2 : 0;
  image.writeUInt16LE(1 | (layout << 1), at);
  image.writeUInt16LE(xattrs.byteLength === 0 ? 0 : 1 + (xattrs.byteLength - 12) / 4, at + 2);
  image.writeUInt16LE(entry.mode, at + 4);
  const size =
    type === TYPE.dir ? inode.blocks.byteLength : type === TYPE.symlink ? (entry.target as string).length : content;
  image.writeBigUInt64LE(BigInt(size), at + 8);
  image.writeUInt32LE(payload(inode, { files, blobs, options }), at + 16);
  image.writeUInt32LE(number, at + 20);
  image.writeUInt32LE(entry.uid ?? 0, at + 24);
  image.writeUInt32LE(entry.gid ?? 0, at + 28);
  image.writeBigInt64LE(BigInt(entry.mtimeSec ?? 0), at + 32);
  image.writeUInt32LE(entry.mtimeNsec ?? 0, at + 40);
  image.writeUInt32LE(inode.links, at + 44);
  xattrs.copy(image, at + 64);
  const bodyAt = at + 64 + xattrs.byteLength;
  if (type === TYPE.symlink) image.write(entry.target as string, bodyAt, 'latin1');
  if (type === TYPE.dir) inode.blocks.copy(image, inode.blockAddress * BLOCK);
  if (!isChunked) return;
  const { indexes } = chunkIndexes(entry, files, blobs, options);
  for (const [index, chunk] of indexes.entries()) {
    const to = Math.ceil(bodyAt / 8) * 8 + 8 * index;
    image.writeUInt16LE(chunk.index & 0xffff, to);
    image[to + 2] = chunk.blob + 1;
    image[to + 3] = chunk.index >> 16;
    image.writeUInt32LE(chunk.uncompressedOffset / BLOCK, to + 4);
  }
}

function payload(
  inode: Inode,
  { files, blobs, options }: { files: FileChunks; blobs: readonly WrittenBlob[]; options: RafsOptions },
): number {
  const type = typeOf(inode);
  if (type === TYPE.dir) return inode.blockAddress;
  if (type === TYPE.char || type === 0o060000) return inode.entry.rdev ?? 0;
  if (type !== TYPE.file || (inode.entry.content?.byteLength ?? 0) === 0) return 0;
  return 0x20 | chunkIndexes(inode.entry, files, blobs, options).bits;
}

function writeSuper(
  image: Buffer,
  init: {
    blobs: readonly WrittenBlob[];
    options: RafsOptions;
    metaAt: number;
    rootNid: number;
    inodes: number;
    chunkTableAt: number;
    blobTableAt: number;
    chunkCount: number;
  },
): void {
  const { blobs, options } = init;
  image.writeUInt32LE(0xe0f5e1e2, 1024);
  image.writeUInt32LE(0x40000000, 1032);
  image[1036] = 12;
  image.writeUInt16LE(init.rootNid, 1038);
  image.writeBigUInt64LE(BigInt(init.inodes), 1040);
  image.writeUInt32LE(image.byteLength / BLOCK, 1060);
  image.writeUInt32LE(init.metaAt / BLOCK, 1064);
  image.writeUInt32LE(0xc, 1104);
  image.writeUInt16LE(blobs.length, 1110);
  image.writeUInt16LE(11, 1112);
  const digest = options.digester === 'blake3' ? 0x4 : 0x8;
  image.writeBigUInt64LE(BigInt(FS_FLAGS[options.compressor] | digest | 0x10 | (options.toc ? 0x100 : 0)), 1152);
  image.writeBigUInt64LE(BigInt(init.blobTableAt), 1160);
  image.writeUInt32LE(256 * blobs.length, 1168);
  image.writeUInt32LE(options.chunkSize, 1172);
  image.writeBigUInt64LE(BigInt(init.chunkTableAt), 1176);
  image.writeBigUInt64LE(BigInt(80 * init.chunkCount), 1184);
}

function writeBlob(
  image: Buffer,
  slot: number,
  at: number,
  blob: WrittenBlob,
  index: number,
  options: RafsOptions,
): void {
  image.write(blob.id, slot, 'latin1');
  image.writeUInt32LE(blob.uncompressedSize / BLOCK, slot + 64);
  image.write(blob.id, at, 'latin1');
  const words = [index, options.chunkSize, blob.chunks.length, CODEC_NUMBERS[options.compressor]];
  for (const [word, value] of words.entries()) image.writeUInt32LE(value, at + 64 + 4 * word);
  image.writeUInt32LE(options.digester === 'blake3' ? 0 : 1, at + 80);
  image.writeUInt32LE(blob.features, at + 84);
  image.writeBigUInt64LE(BigInt(blob.bytes.byteLength), at + 88);
  image.writeBigUInt64LE(BigInt(blob.uncompressedSize), at + 96);
  image.writeUInt32LE(blob.tocSize, at + 104);
  image.writeUInt32LE(blob.ci.compressor, at + 108);
  image.writeBigUInt64LE(BigInt(blob.ci.offset), at + 112);
  image.writeBigUInt64LE(BigInt(blob.ci.compressedSize), at + 120);
  image.writeBigUInt64LE(BigInt(blob.ci.uncompressedSize), at + 128);
  image.set(blob.tocDigest, at + 136);
  if (blob.metaBlob === undefined) return;
  image.set(blob.metaBlob.digest, at + 168);
  image.writeBigUInt64LE(BigInt(blob.metaBlob.size), at + 200);
}

/** RafsV5ChunkInfo, 80 bytes. */
export function writeChunkInfo(image: Buffer, at: number, chunk: WrittenChunk, fileOffset: number): void {
  image.set(chunk.digest, at);
  image.writeUInt32LE(chunk.blob, at + 32);
  image.writeUInt32LE((chunk.isCompressed ? 1 : 0) | (chunk.batch === undefined ? 0 : 8), at + 36);
  image.writeUInt32LE(chunk.compressedSize, at + 40);
  image.writeUInt32LE(chunk.uncompressedSize, at + 44);
  image.writeBigUInt64LE(BigInt(chunk.compressedOffset), at + 48);
  image.writeBigUInt64LE(BigInt(chunk.uncompressedOffset), at + 56);
  image.writeBigUInt64LE(BigInt(fileOffset), at + 64);
  image.writeUInt32LE(chunk.index, at + 72);
}

function align(bytes: number): number {
  return Math.ceil(bytes / BLOCK) * BLOCK;
}
