import type { RafsOptions, WrittenBlob, WrittenChunk } from './blob-writer.ts';
import { type RafsEntry, TYPE } from './entries.ts';
import type { FileChunks } from './image.ts';
import { writeChunkInfo } from './v6-writer.ts';

const FS_FLAGS = { none: 0x1, lz4_block: 0x2, gzip: 0x40, zstd: 0x80 } as const;
const FLAG = { symlink: 1, hardLink: 2, xattr: 4 } as const;

interface Inode {
  readonly entry: RafsEntry;
  readonly name: string;
  readonly parent: number;
  readonly children: RafsEntry[];
  number: number;
  firstChild: number;
}

/** A RAFS v5 bootstrap (formats §2.8): the children of each directory have neighbouring numbers. */
export function bootstrapV5(
  entries: readonly RafsEntry[],
  files: FileChunks,
  blobs: readonly WrittenBlob[],
  options: RafsOptions,
): Buffer {
  const inodes = numbered(entries);
  const inodeTableAt = 8192;
  const blobTable = Buffer.concat(
    blobs.map(({ id }, index) =>
      Buffer.concat([Buffer.alloc(8), Buffer.from(id), Buffer.alloc(index + 1 < blobs.length ? 1 : 0)]),
    ),
  );
  const blobTableAt = align(inodeTableAt + 4 * inodes.length);
  const extendedAt = align(blobTableAt + blobTable.byteLength);
  const bodies = inodes.map((inode) => inodeBytes(inode, inodes, files, blobs));
  const table = Buffer.alloc(4 * inodes.length);
  let at = align(extendedAt + 64 * blobs.length);
  for (const [index, body] of bodies.entries()) {
    table.writeUInt32LE(at / 8, 4 * index);
    at += body.byteLength;
  }
  const image = Buffer.alloc(at);
  const digest = options.digester === 'blake3' ? 0x4 : 0x8;
  image.writeUInt32LE(0x52414653, 0);
  image.writeUInt32LE(0x500, 4);
  image.writeUInt32LE(8192, 8);
  image.writeUInt32LE(options.chunkSize, 12);
  image.writeBigUInt64LE(BigInt(FS_FLAGS[options.compressor] | digest | 0x10 | 0x20), 16);
  image.writeBigUInt64LE(BigInt(inodes.length), 24);
  image.writeBigUInt64LE(BigInt(inodeTableAt), 32);
  image.writeBigUInt64LE(BigInt(blobTableAt), 48);
  image.writeUInt32LE(inodes.length, 56);
  image.writeUInt32LE(blobTable.byteLength, 64);
  image.writeUInt32LE(blobs.length, 68);
  image.writeBigUInt64LE(BigInt(extendedAt), 72);
  table.copy(image, inodeTableAt);
  blobTable.copy(image, blobTableAt);
  for (const [index, blob] of blobs.entries()) {
    image.writeUInt32LE(blob.chunks.length, extendedAt + 64 * index);
    image.writeUInt32LE(blob.features, extendedAt + 64 * index + 4);
    image.writeBigUInt64LE(BigInt(blob.uncompressedSize), extendedAt + 64 * index + 8);
    image.writeBigUInt64LE(BigInt(blob.bytes.byteLength), extendedAt + 64 * index + 16);
  }
  for (const [index, body] of bodies.entries()) body.copy(image, 8 * table.readUInt32LE(4 * index));
  return image;
}

/** Breadth first, so that siblings follow each other. */
function numbered(entries: readonly RafsEntry[]): Inode[] {
  const below = new Map<string, RafsEntry[]>();
  for (const entry of entries) {
    if (entry.path === '') continue;
    const parent = entry.path.slice(0, Math.max(0, entry.path.lastIndexOf('/')));
    below.set(parent, [...(below.get(parent) ?? []), entry]);
  }
  const root = { entry: entries[0] as RafsEntry, name: '/', parent: 0, children: below.get('') ?? [] };
  const inodes: Inode[] = [{ ...root, number: 1, firstChild: 0 }];
  // the list grows while it is walked
  for (const inode of inodes) {
    inode.firstChild = inodes.length + 1;
    const sorted = [...inode.children].sort((a, b) => (a.path < b.path ? -1 : 1));
    for (const entry of sorted) {
      inodes.push({
        entry,
        name: entry.path.slice(entry.path.lastIndexOf('/') + 1),
        parent: inode.number,
        children: below.get(entry.path) ?? [],
        number: inodes.length + 1,
        firstChild: 0,
      });
    }
  }
  return inodes;
}

function inodeBytes(inode: Inode, inodes: readonly Inode[], files: FileChunks, blobs: readonly WrittenBlob[]): Buffer {
  const { entry, name, number } = inode;
  const type = entry.mode & 0o170000;
  const twins = entry.inode === undefined ? [inode] : inodes.filter((other) => other.entry.inode === entry.inode);
  const head = Buffer.alloc(128);
  const flags =
    (type === TYPE.symlink ? FLAG.symlink : 0) |
    (twins.length > 1 ? FLAG.hardLink : 0) |
    ((entry.xattrs?.size ?? 0) > 0 ? FLAG.xattr : 0);
  const chunks = type === TYPE.file ? (files.get(entry) as readonly number[]) : [];
  head.writeBigUInt64LE(BigInt(inode.parent), 32);
  head.writeBigUInt64LE(BigInt((twins[0] as Inode).number), 40);
  head.writeUInt32LE(entry.uid ?? 0, 48);
  head.writeUInt32LE(entry.gid ?? 0, 52);
  head.writeUInt32LE(entry.mode, 60);
  head.writeBigUInt64LE(BigInt(entry.content?.byteLength ?? 0), 64);
  head.writeBigUInt64LE(BigInt(flags), 80);
  head.writeUInt32LE(type === TYPE.dir ? 2 : twins.length, 88);
  head.writeUInt32LE(type === TYPE.dir ? inode.firstChild : 0, 92);
  head.writeUInt32LE(type === TYPE.dir ? inode.children.length : chunks.length, 96);
  head.writeUInt16LE(name.length, 100);
  head.writeUInt16LE(entry.target?.length ?? 0, 102);
  head.writeUInt32LE(entry.rdev ?? 0, 104);
  head.writeUInt32LE(entry.mtimeNsec ?? 0, 108);
  head.writeBigInt64LE(BigInt(entry.mtimeSec ?? 0), 112);
  const parts = [head, padded(Buffer.from(name, 'latin1'))];
  if (type === TYPE.symlink) parts.push(padded(Buffer.from(entry.target ?? '', 'latin1')));
  if ((flags & FLAG.xattr) !== 0) parts.push(xattrBytes(entry));
  let fileOffset = 0;
  for (const index of chunks) {
    const chunk = (blobs[entry.blob ?? 0] as WrittenBlob).chunks[index] as WrittenChunk;
    const info = Buffer.alloc(80);
    writeChunkInfo(info, 0, chunk, fileOffset);
    fileOffset += chunk.uncompressedSize;
    parts.push(info);
  }
  if (number < 1) throw new Error('inode without a number');
  return Buffer.concat(parts);
}

function xattrBytes({ xattrs }: RafsEntry): Buffer {
  const pairs = [...(xattrs ?? [])].map(([name, value]) => {
    const pair = Buffer.concat([Buffer.from(`${name}\0`, 'latin1'), value]);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(pair.byteLength);
    return Buffer.concat([length, pair]);
  });
  const all = Buffer.concat(pairs);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(all.byteLength));
  return Buffer.concat([size, padded(all)]);
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((8 - (bytes.byteLength % 8)) % 8)]);
}

function align(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
