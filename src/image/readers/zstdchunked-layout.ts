import { createHash } from 'node:crypto';
import { BLOCK_BYTES } from '../../core/block-map.ts';
import { MAX_CHUNK_BYTES } from '../../core/chunk.ts';
import type { ChunkTable } from '../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../core/chunk-table-builder.ts';
import type { ByteString, FileExtent, FileNode, LayerTree } from '../layer-tree.ts';
import { chunkDigest, filesOf, invalid } from './estargz-layout.ts';
import type { TocEntry } from './estargz-toc.ts';
import { nextTurn } from './next-turn.ts';

/** One chunk of a file; its frame ends where the next one's starts. No digest: a hole. */
interface FrameChunk {
  readonly fileOffset: number;
  readonly length: number;
  readonly frameOffset: number;
  readonly digest: Uint8Array | undefined;
}

interface FrameFile {
  readonly path: ByteString;
  readonly size: number;
  readonly digest: string;
  /** End of the last chunk's frame. */
  readonly endOffset: number;
  readonly chunks: FrameChunk[];
}

interface PlacedFile {
  readonly node: FileNode;
  readonly file: FrameFile;
}

/** A chunk's place on the device. */
interface Placed {
  readonly deviceOffset: number;
  readonly length: number;
  readonly extentOffset: number;
  readonly extentLength: number;
  readonly digest: Uint8Array;
}

/** Bytes of zeros hashed for one layer, to tell whether chunks too large to fetch are holes: a tenth of a second. */
const ZEROS_HASHED_BYTES = 256 * 1024 * 1024;
const ZEROS = new Uint8Array(1024 * 1024);

/** Chunks laid out before other work gets a turn: about 5 ms. */
const CHUNKS_PER_TURN = 4000;

/**
 * Collects the data entries of a containers/storage zstd:chunked TOC and lays the files out on the device in the order of
 * the blob. Chunks are content-defined, so they start anywhere: a file's lie side by side and share blocks. Chunks of zeros
 * become holes. Throws INVALID_CHUNK_TABLE where the chunks of a file don't make the file.
 */
export class ZstdchunkedLayout {
  readonly #files: PlacedFile[] = [];
  #zerosLeft = ZEROS_HASHED_BYTES;
  #last: FrameFile | undefined;

  /** A `reg` entry; its `chunk` entries follow through `addChunk`. */
  addFile(entry: TocEntry, node: FileNode): void {
    const { name: path, size, digest, endOffset } = entry;
    const file: FrameFile = { path, size, digest, endOffset, chunks: [] };
    this.#last = file;
    if (size === 0) return;
    this.#push(file, entry, entry.chunkSize === 0 ? size : entry.chunkSize);
    this.#files.push({ node, file });
  }

  /** A `chunk` entry, which belongs to the last `reg` entry. */
  addChunk(entry: TocEntry): void {
    const file = this.#last;
    if (file === undefined || file.chunks.length === 0 || (entry.name !== file.path && entry.name !== '')) {
      throw invalid(entry.name, 'is a chunk that does not follow its file');
    }
    this.#push(file, entry, entry.chunkSize === 0 ? file.size - entry.chunkOffset : entry.chunkSize);
  }

  /** Gives every file that is in `tree` its place on the device (sets `extents`). `dataEnd`: where the frames end. */
  async build(
    tree: LayerTree,
    init: { compressedSize: number; dataEnd: number; signal: AbortSignal },
  ): Promise<{ chunks: ChunkTable }> {
    const live = new Set(filesOf(tree.root));
    const placed: Placed[] = [];
    let cursor = 0;
    let turn = CHUNKS_PER_TURN;
    const inBlobOrder = this.#files.filter(({ node }) => live.has(node)).sort((a, b) => firstFrame(a) - firstFrame(b));
    for (const { node, file } of inBlobOrder) {
      if (placed.length >= turn) {
        turn += CHUNKS_PER_TURN;
        await nextTurn(init.signal);
      }
      if (file.endOffset > init.dataEnd) throw invalid(file.path, `has data up to ${file.endOffset}, behind its end`);
      cursor = placeFile(node, file, cursor, placed);
    }
    const packed = placed.some(({ deviceOffset }) => deviceOffset % BLOCK_BYTES !== 0);
    const builder = new ChunkTableBuilder({ compressedSize: init.compressedSize, packed });
    for (const { digest, ...chunk } of placed) builder.addRaw({ ...chunk, codec: 'zstd', innerOffset: 0 }, digest);
    return { chunks: builder.build() };
  }

  #push(file: FrameFile, entry: TocEntry, length: number): void {
    const at = endOf(file);
    if (entry.chunkOffset !== at) {
      const how = entry.chunkOffset < at ? 'overlap' : 'leave a gap';
      throw invalid(file.path, `has chunks that ${how} at ${Math.min(at, entry.chunkOffset)}`);
    }
    if (!(length > 0) || !(at + length <= file.size)) {
      throw invalid(file.path, `has ${length} bytes at ${at} of ${file.size}`);
    }
    file.chunks.push({
      fileOffset: at,
      length,
      frameOffset: entry.offset,
      digest: this.#isHole(file, entry, length) ? undefined : chunkDigest(file, entry, length),
    });
  }

  /** Writers mark runs of zeros, but a file that is nothing else they leave one chunk, however long it is. */
  #isHole(file: FrameFile, entry: TocEntry, length: number): boolean {
    if (entry.zeros) return true;
    if (length <= MAX_CHUNK_BYTES || length > this.#zerosLeft) return false;
    this.#zerosLeft -= length;
    const hash = createHash('sha256');
    for (let left = length; left > 0; left -= ZEROS.byteLength) hash.update(ZEROS.subarray(0, left));
    return hash.digest().equals(chunkDigest(file, entry, length));
  }
}

function endOf(file: FrameFile): number {
  const last = file.chunks.at(-1);
  return last === undefined ? 0 : last.fileOffset + last.length;
}

function firstFrame({ file }: PlacedFile): number {
  return (file.chunks[0] as FrameChunk).frameOffset;
}

/** Appends the file's chunks from device byte `cursor` on, sets its extents and gives the first free block after it. */
function placeFile(node: FileNode, file: FrameFile, cursor: number, placed: Placed[]): number {
  if (endOf(file) !== file.size) {
    throw invalid(file.path, `has ${endOf(file)} bytes in chunks, but is ${file.size} long`);
  }
  const extents: FileExtent[] = [];
  let free = cursor;
  let open: { fileOffset: number; deviceOffset: number; end: number } | undefined;
  const close = (): void => {
    if (open === undefined) return;
    const { fileOffset, deviceOffset, end } = open;
    extents.push({ fileOffset, deviceOffset, length: Math.min(upToBlock(end), file.size) - fileOffset, device: 0 });
    free = deviceOffset + upToBlock(end) - fileOffset;
    open = undefined;
  };
  for (const [index, chunk] of file.chunks.entries()) {
    if (chunk.digest === undefined) continue;
    const end = file.chunks[index + 1]?.frameOffset ?? file.endOffset;
    if (!(end > chunk.frameOffset)) throw invalid(file.path, `has a frame from ${chunk.frameOffset} to ${end}`);
    // A hole inside one block is not worth an extent.
    if (open !== undefined && chunk.fileOffset >= upToBlock(open.end)) close();
    const fileOffset = chunk.fileOffset - (chunk.fileOffset % BLOCK_BYTES);
    open ??= { fileOffset, deviceOffset: free, end: 0 };
    open.end = chunk.fileOffset + chunk.length;
    placed.push({
      deviceOffset: open.deviceOffset + chunk.fileOffset - open.fileOffset,
      length: chunk.length,
      extentOffset: chunk.frameOffset,
      extentLength: end - chunk.frameOffset,
      digest: chunk.digest,
    });
  }
  close();
  node.extents = extents;
  return free;
}

function upToBlock(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
}
