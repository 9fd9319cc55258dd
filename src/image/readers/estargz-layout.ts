import { BLOCK_BYTES } from '../../core/block-map.ts';
import type { ChunkTable, Codec } from '../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../core/chunk-table-builder.ts';
import { digestAlgorithm, digestBytes, parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { showPath } from '../entry-rules.ts';
import type { ByteString, DirNode, FileNode, LayerTree } from '../layer-tree.ts';
import type { TocEntry } from './estargz-toc.ts';
import { nextTurn } from './next-turn.ts';

/** One chunk of a file. */
interface TocChunk {
  readonly fileOffset: number;
  readonly length: number;
  readonly memberOffset: number;
  readonly innerOffset: number;
  readonly digest: Uint8Array;
}

interface TocFile {
  readonly path: ByteString;
  readonly size: number;
  readonly digest: string;
  readonly chunks: TocChunk[];
}

/** A file that gets a place on the device. */
interface PlacedFile {
  readonly node: FileNode;
  readonly file: TocFile;
  /** Its first chunk as the TOC lists them. */
  readonly start: TocChunk;
}

/** Files laid out before other work gets a turn: about 5 ms. */
const FILES_PER_TURN = 4000;

/** A position in the decompressed blob. */
interface BlobPosition {
  readonly memberOffset: number;
  readonly innerOffset: number;
}

/**
 * Collects the data entries of a TOC and lays the files out on the device in the order of the blob, so that reading the
 * blob forwards fills the device forwards. Throws INVALID_CHUNK_TABLE where the chunks of a file don't make the file.
 */
export class EstargzLayout {
  readonly #files: PlacedFile[] = [];
  readonly #memberOffsets: number[] = [];
  #last: TocFile | undefined;

  /** A `reg` entry; its `chunk` entries follow through `addChunk`. */
  addFile(entry: TocEntry, node: FileNode): void {
    const file = fileOf(entry);
    this.#last = file;
    if (entry.size === 0) return;
    this.#push(file, entry, entry.chunkSize === 0 ? entry.size : entry.chunkSize);
    this.#files.push({ node, file, start: file.chunks[0] as TocChunk });
  }

  /** A `chunk` entry, which belongs to the last `reg` entry. */
  addChunk(entry: TocEntry): void {
    const file = this.#last;
    if (file === undefined || file.chunks.length === 0) {
      throw invalid(entry.name, 'is a chunk that follows no file with data');
    }
    if (entry.name !== file.path && entry.name !== '') {
      throw invalid(entry.name, `is a chunk that follows ${showPath(file.path)}`);
    }
    this.#push(file, entry, entry.chunkSize === 0 ? file.size - entry.chunkOffset : entry.chunkSize);
  }

  /** A landmark: where it starts, when it has data. It is no file of the tree, but ends the member before it. */
  addLandmark(entry: TocEntry): BlobPosition {
    this.#memberOffsets.push(entry.offset);
    this.#last = fileOf(entry);
    return { memberOffset: entry.offset, innerOffset: entry.innerOffset };
  }

  /**
   * Gives every file that is in `tree` its place on the device (sets `extents`). `dataEnd` is where the TOC starts in
   * the blob; `prefetchBytes` says how much of the device lies before `landmark`. `codec` is that of the members.
   */
  async build(
    tree: LayerTree,
    init: {
      compressedSize: number;
      dataEnd: number;
      codec: Codec;
      landmark: BlobPosition | undefined;
      signal: AbortSignal;
    },
  ): Promise<{ chunks: ChunkTable; prefetchBytes: number }> {
    const builder = new ChunkTableBuilder({ compressedSize: init.compressedSize });
    const memberEnd = memberEnds(this.#memberOffsets, init.dataEnd);
    let cursor = 0;
    let prefetchBytes = 0;
    let placed = 0;
    for (const { node, file, start } of this.#inBlobOrder(tree)) {
      placed += 1;
      if (placed % FILES_PER_TURN === 0) await nextTurn(init.signal);
      checkChunks(file);
      for (const chunk of file.chunks) {
        const extentLength = memberEnd(chunk.memberOffset) - chunk.memberOffset;
        if (!(extentLength > 0))
          throw invalid(file.path, `has data at ${chunk.memberOffset}, behind the end of the data`);
        builder.addRaw(
          {
            deviceOffset: cursor + chunk.fileOffset,
            length: chunk.length,
            extentOffset: chunk.memberOffset,
            extentLength,
            codec: init.codec,
            innerOffset: chunk.innerOffset,
          },
          chunk.digest,
        );
      }
      node.extents = [{ fileOffset: 0, length: node.size, device: 0, deviceOffset: cursor }];
      cursor += Math.ceil(node.size / BLOCK_BYTES) * BLOCK_BYTES;
      if (init.landmark !== undefined && isBefore(start, init.landmark)) prefetchBytes = cursor;
    }
    return { chunks: builder.build(), prefetchBytes };
  }

  #push(file: TocFile, entry: TocEntry, length: number): void {
    if (entry.offset === 0 && entry.innerOffset === 0) throw invalid(file.path, 'has data but no offset');
    const end = entry.chunkOffset + length;
    if (!(length > 0) || !(end <= file.size)) {
      throw invalid(file.path, `has ${length} bytes at ${entry.chunkOffset} of ${file.size}`);
    }
    this.#memberOffsets.push(entry.offset);
    file.chunks.push({
      fileOffset: entry.chunkOffset,
      length,
      memberOffset: entry.offset,
      innerOffset: entry.innerOffset,
      digest: chunkDigest(file, entry, length),
    });
  }

  /** Files that are still in the tree: later entries may have replaced some, and those need no place. */
  #inBlobOrder(tree: LayerTree): PlacedFile[] {
    const live = new Set(filesOf(tree.root));
    return this.#files
      .filter(({ node }) => live.has(node))
      .sort((a, b) => a.start.memberOffset - b.start.memberOffset || a.start.innerOffset - b.start.innerOffset);
  }
}

// Not the entry itself: a hundred thousand of them would live on until the layout is made.
function fileOf({ name, size, digest }: TocEntry): TocFile {
  return { path: name, size, digest, chunks: [] };
}

/** Every file below `root`; one with several names comes several times. */
export function* filesOf(root: DirNode): Generator<FileNode> {
  const open: DirNode[] = [root];
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    for (const child of dir.children.values()) {
      if (child.kind === 'dir') open.push(child);
      else if (child.kind === 'file') yield child;
    }
  }
}

/** Chunks in any order must be the file, end to end; on the device each must start at a block. */
function checkChunks(file: TocFile): void {
  if (file.chunks.length > 1) file.chunks.sort((a, b) => a.fileOffset - b.fileOffset);
  let at = 0;
  for (const chunk of file.chunks) {
    if (chunk.fileOffset !== at) {
      const how = chunk.fileOffset < at ? 'overlap' : 'leave a gap';
      throw invalid(file.path, `has chunks that ${how} at ${Math.min(at, chunk.fileOffset)}`);
    }
    if (chunk.fileOffset % BLOCK_BYTES !== 0) {
      throw new ShoalError('UNSUPPORTED_LAYER', `chunks of ${showPath(file.path)} do not start at multiples of 4096`);
    }
    at += chunk.length;
  }
  if (at !== file.size) throw invalid(file.path, `has ${at} bytes in chunks, but is ${file.size} long`);
}

/** The chunk's own digest, or the file's when the chunk is all of it. */
export function chunkDigest(
  file: { readonly path: ByteString; readonly size: number; readonly digest: string },
  entry: TocEntry,
  length: number,
): Uint8Array {
  let text = entry.chunkDigest;
  if (text === '' && length === file.size) text = file.digest;
  if (text === '') throw invalid(file.path, `has no digest for its chunk at ${entry.chunkOffset}`);
  let digest: ReturnType<typeof parseDigest>;
  try {
    digest = parseDigest(text);
  } catch (cause) {
    throw new ShoalError('INVALID_CHUNK_TABLE', `entry ${showPath(file.path)} has a bad chunk digest`, { cause });
  }
  if (digestAlgorithm(digest) !== 'sha256') {
    throw new ShoalError('UNSUPPORTED_LAYER', `entry ${showPath(file.path)} has a chunk digest that is not sha256`);
  }
  return digestBytes(digest);
}

/** Where a member ends: at the next member that some entry names, or where the data ends. */
function memberEnds(offsets: readonly number[], dataEnd: number): (offset: number) => number {
  const sorted = Float64Array.from(offsets).sort();
  return (offset) => {
    let low = 0;
    let high = sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((sorted[middle] as number) <= offset) low = middle + 1;
      else high = middle;
    }
    return Math.min(sorted[low] ?? dataEnd, dataEnd);
  };
}

function isBefore(a: BlobPosition, b: BlobPosition): boolean {
  return a.memberOffset < b.memberOffset || (a.memberOffset === b.memberOffset && a.innerOffset < b.innerOffset);
}

/** INVALID_CHUNK_TABLE about one entry of a TOC. */
export function invalid(path: ByteString, why: string): ShoalError {
  return new ShoalError('INVALID_CHUNK_TABLE', `entry ${showPath(path)} ${why}`);
}
