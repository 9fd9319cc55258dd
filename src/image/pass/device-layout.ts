import { hash } from 'node:crypto';
import { BLOCK_BYTES } from '../../core/block-map.ts';
import { ShoalError } from '../../errors.ts';
import { alignedBytes } from '../../kernel/aligned.ts';
import { showPath } from '../entry-rules.ts';
import { emptyDir, type FileExtent, type InodeMeta, type InodeNode, type LayerTree } from '../layer-tree.ts';
import type { TarEntry, TarSink } from '../tar/parser.ts';
import { createTreeBuilder, type TreeBuilder } from '../tree-builder.ts';
import { ChunkRows } from './chunk-rows.ts';

/**
 * Largest chunk, bytes: a file of more is cut at its multiples, in every layer alike. A span of compressed data goes on
 * until its last chunk is whole, so half of the span is what is decoded twice at worst.
 */
export const PASS_CHUNK_BYTES = 512 * 1024;
/** Device bytes gathered before they are written: a stage. */
export const STAGE_BYTES = 2 * 1024 * 1024;

/**
 * Where the bytes of the device go, in order, whole blocks: the start of a stage each time (`alignedBytes`). One that keeps
 * them for longer than the call gives another stage to go on with.
 */
export type DeviceOutput = (bytes: Uint8Array, offset: number) => Uint8Array | undefined;

/**
 * Turns tar entries into a file tree and a device: each file starts on a block of its own and is cut into chunks that are
 * hashed as they pass, so that a file has the same chunks in whatever layer it comes. Throws what the tree builder throws.
 */
export class DeviceLayout implements TarSink {
  readonly chunks = new ChunkRows();
  readonly #tree: TreeBuilder;
  readonly #output: DeviceOutput;
  #stage: Uint8Array = alignedBytes(STAGE_BYTES);
  /** Device offset of the stage, where the chunk under way starts in it, and how much of it is there. */
  #stageOffset = 0;
  #chunkAt = 0;
  #chunkFilled = 0;
  /** Tar offset of the chunk that began last; -1 before the first. */
  chunkStart = -1;
  /** Tar offset of the next data byte. */
  #tarAt = 0;
  /** Lengths of the runs that are still to come, the one under way first. */
  #runs: number[] = [];
  #runLeft = 0;

  constructor(output: DeviceOutput, init: { maxEntries?: number }) {
    this.#output = output;
    this.#tree = createTreeBuilder(init);
  }

  entry(entry: TarEntry): void {
    if (entry.type === 'hardlink') {
      this.#tree.addHardLink(entry.path, entry.linkName);
      return;
    }
    const node = inodeOf(entry);
    if (node.kind === 'file' && entry.dataLength > 0) node.extents = this.#place(entry);
    this.#tree.add(entry.path, node);
  }

  data(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      if (this.#chunkFilled === 0) this.chunkStart = this.#tarAt;
      const wanted = Math.min(PASS_CHUNK_BYTES - this.#chunkFilled, this.#runLeft, bytes.byteLength - at);
      this.#stage.set(bytes.subarray(at, at + wanted), this.#chunkAt + this.#chunkFilled);
      this.#chunkFilled += wanted;
      this.#runLeft -= wanted;
      this.#tarAt += wanted;
      at += wanted;
      if (this.#chunkFilled === PASS_CHUNK_BYTES || this.#runLeft === 0) this.#endChunk();
      if (this.#runLeft === 0) this.#runLeft = this.#runs.shift() ?? 0;
    }
  }

  /** Writes what is left; the tree and the length of the device. */
  finish(): { tree: LayerTree; deviceSize: number } {
    this.#flush();
    return { tree: this.#tree.build(), deviceSize: this.#stageOffset };
  }

  /** Gives the data that follows its place on the device. */
  #place(entry: TarEntry): FileExtent[] {
    let deviceOffset = this.#stageOffset + this.#chunkAt;
    // Not pushed one by one: an array that grows has room for 17.
    const extents = runsOf(entry).map(({ offset, length }): FileExtent => {
      const extent = { fileOffset: offset, length, device: 0, deviceOffset };
      deviceOffset += Math.ceil(length / BLOCK_BYTES) * BLOCK_BYTES;
      return extent;
    });
    this.#tarAt = entry.dataOffset;
    this.#runs = extents.map(({ length }) => length);
    this.#runLeft = this.#runs.shift() ?? 0;
    return extents;
  }

  #endChunk(): void {
    const end = this.#chunkAt + this.#chunkFilled;
    const chunk = this.#stage.subarray(this.#chunkAt, end);
    this.chunks.add({
      deviceBlock: (this.#stageOffset + this.#chunkAt) / BLOCK_BYTES,
      length: this.#chunkFilled,
      tarOffset: this.#tarAt - this.#chunkFilled,
      // As text it costs a microsecond less than as memory of its own.
      digest: hash('sha256', chunk, 'hex'),
    });
    const blockEnd = Math.ceil(end / BLOCK_BYTES) * BLOCK_BYTES;
    this.#stage.fill(0, end, blockEnd);
    this.#chunkAt = blockEnd;
    this.#chunkFilled = 0;
    if (STAGE_BYTES - this.#chunkAt < PASS_CHUNK_BYTES) this.#flush();
  }

  #flush(): void {
    if (this.#chunkAt === 0) return;
    this.#stage = this.#output(this.#stage.subarray(0, this.#chunkAt), this.#stageOffset) ?? this.#stage;
    this.#stageOffset += this.#chunkAt;
    this.#chunkAt = 0;
  }
}

/** The pieces of a sparse file joined where they touch; each must start a block of the file. */
function runsOf({ path, size, dataLength, pieces }: TarEntry): { offset: number; length: number }[] {
  if (pieces === undefined) return [{ offset: 0, length: Math.min(size, dataLength) }];
  const runs: { offset: number; length: number }[] = [];
  for (const { offset, length } of pieces) {
    const last = runs.at(-1);
    const end = last === undefined ? 0 : last.offset + last.length;
    if (last !== undefined && offset === end) last.length += length;
    else if (offset % BLOCK_BYTES === 0) runs.push({ offset, length });
    else throw new ShoalError('UNSUPPORTED_LAYER', `sparse file ${showPath(path)} has data that starts within a block`);
  }
  return runs;
}

function inodeOf(entry: TarEntry): InodeNode {
  const meta: InodeMeta = {
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeSec: entry.mtimeSec,
    mtimeNsec: entry.mtimeNsec,
  };
  if (entry.xattrs !== undefined) meta.xattrs = entry.xattrs;
  switch (entry.type) {
    case 'file':
      return { ...meta, kind: 'file', size: entry.size, extents: [] };
    case 'symlink':
      return { ...meta, kind: 'symlink', target: entry.linkName };
    case 'char':
    case 'block':
      return { ...meta, kind: entry.type, major: entry.devMajor, minor: entry.devMinor };
    case 'fifo':
      return { ...meta, kind: 'fifo' };
    default:
      return emptyDir(meta);
  }
}
