import { BLOCK_BYTES } from './block-map.ts';
import { type ChunkAlgorithm, type Digest, digestFromBytes, spanName } from './digest.ts';

/** How the bytes of an extent are coded in the blob. New codecs are appended: the position is stored on disk. */
export const CODECS = ['none', 'gzip', 'zstd', 'lz4_block', 'deflate', 'stream'] as const;

/**
 * A codec by name. `deflate` starts in the middle of a gzip stream, at a checkpoint; `stream` cannot be decoded without
 * everything that comes before it in the blob, so no source yields such a chunk by range.
 */
export type Codec = (typeof CODECS)[number];

/** Where in the first byte of a `deflate` extent its first block begins, and what the decoder must know of before. */
export interface Checkpoint {
  /** High bits of the first byte that belong to the extent; 0: all of it. */
  readonly bits: number;
  /** Row of the 32 KiB of output before the checkpoint, in the windows kept beside the table; undefined: none needed. */
  readonly window: number | undefined;
}

/** A compressed range of the blob; several chunks may lie in one (eStargz `innerOffset`). */
export interface Extent {
  /** First byte in the blob. */
  readonly offset: number;
  /** Compressed length in bytes. */
  readonly length: number;
  readonly codec: Codec;
  /** Decoded bytes needed to yield every chunk of this extent; decoding may stop there. */
  readonly decodedLength: number;
  /** Present for `deflate`. */
  readonly checkpoint?: Checkpoint;
  /** sha256 of the compressed range, 32 bytes, to be checked before it is decoded; every extent of a `span` table has it. */
  readonly digest?: Uint8Array;
}

/** One chunk of a device. */
export interface ChunkRow {
  readonly index: number;
  /** First byte on the device, a multiple of 4096 unless the table is packed. */
  readonly deviceOffset: number;
  /** Uncompressed length in bytes, 1 to MAX_CHUNK_BYTES; what no chunk covers of a block is zeros. */
  readonly length: number;
  readonly digest: Digest;
  /** Row of the extent that yields it. */
  readonly extent: number;
  /** Where the chunk starts in the decoded extent. */
  readonly innerOffset: number;
}

/** What a reader hands over per chunk; device offsets must ascend. */
export interface ChunkInput {
  readonly deviceOffset: number;
  readonly length: number;
  readonly digest: Digest;
  readonly extentOffset: number;
  readonly extentLength: number;
  readonly codec: Codec;
  readonly innerOffset: number;
  /** For `deflate`; the first chunk of an extent decides. */
  readonly checkpoint?: Checkpoint | undefined;
  /** sha256 of the compressed range; the first chunk of an extent decides. */
  readonly extentDigest?: Uint8Array | undefined;
  /** Decoded bytes of the whole extent, for codecs that cannot stop before its end; else what the chunks need. */
  readonly decodedLength?: number;
}

/** Names of 32 bytes a table can hold; the position is stored on disk. */
export const TABLE_ALGORITHMS: readonly ChunkAlgorithm[] = ['sha256', 'blake3', 'span'];

/** What a table is made of: a typed array per property, a row per chunk. Never changed once a table has them. */
export interface ChunkColumns {
  readonly deviceSize: number;
  readonly compressedSize: number;
  readonly algorithm: ChunkAlgorithm;
  /** Device offset in blocks of 4096 bytes. */
  readonly blockStart: Uint32Array;
  /** Bytes from there to the chunk; absent when all chunks start with a block. Neighbours may then share a block. */
  readonly skew?: Uint16Array | undefined;
  readonly length: Uint32Array;
  readonly extentOf: Uint32Array;
  readonly inner: Uint32Array;
  /** 32 bytes per chunk. */
  readonly digests: Uint8Array;
  readonly extents: readonly Extent[];
}

/** All chunks of one blob, ordered by device offset, never overlapping: ~60 bytes a chunk. */
export class ChunkTable {
  readonly columns: ChunkColumns;
  readonly count: number;
  /** Device length in bytes: a multiple of 4096, end of the last chunk rounded up. */
  readonly deviceSize: number;
  /** Length of the blob in the registry, bytes. */
  readonly compressedSize: number;
  readonly algorithm: ChunkAlgorithm;
  readonly #blockStart: Uint32Array;
  readonly #skew: Uint16Array | undefined;
  readonly #length: Uint32Array;

  /** The columns are checked by `ChunkTableBuilder`; use that or `decodeChunkTable`. */
  constructor(columns: ChunkColumns) {
    this.columns = columns;
    this.count = columns.length.length;
    this.deviceSize = columns.deviceSize;
    this.compressedSize = columns.compressedSize;
    this.algorithm = columns.algorithm;
    this.#blockStart = columns.blockStart;
    this.#skew = columns.skew;
    this.#length = columns.length;
  }

  /** False when chunks are not named by their bytes: then nobody else can give or take them. */
  get shareable(): boolean {
    return this.algorithm !== 'span';
  }

  get extentCount(): number {
    return this.columns.extents.length;
  }

  /** Bytes of all chunks, without padding. */
  get dataBytes(): number {
    let sum = 0;
    for (const length of this.#length) sum += length;
    return sum;
  }

  /** The chunk at this row; throws RangeError outside [0, count). */
  row(index: number): ChunkRow {
    if (!(index >= 0 && index < this.count)) throw new RangeError(`chunk ${index} of ${this.count}`);
    return {
      index,
      deviceOffset: this.#startOf(index),
      length: this.#length[index] as number,
      digest: this.#nameOf(index),
      extent: this.columns.extentOf[index] as number,
      innerOffset: this.columns.inner[index] as number,
    };
  }

  /** The 32 digest bytes of a row, a view that must not be changed. */
  digestBytesAt(index: number): Uint8Array {
    return this.columns.digests.subarray(index * 32, index * 32 + 32);
  }

  extent(index: number): Extent {
    return this.columns.extents[index] as Extent;
  }

  /** True when chunks may start in the middle of a block (content-defined chunks do). */
  get packed(): boolean {
    return this.#skew !== undefined;
  }

  /** Blocks [first, end) that chunk `index` touches; in a packed table neighbours may touch the outer ones as well. */
  blocksOf(index: number): { first: number; end: number } {
    const first = this.#blockStart[index] as number;
    const bytes = (this.#skew?.[index] ?? 0) + (this.#length[index] as number);
    return { first, end: first + Math.ceil(bytes / BLOCK_BYTES) };
  }

  /** Blocks [first, end) that hold nothing but chunk `index`; all it touches unless the table is packed. */
  ownBlocksOf(index: number): { first: number; end: number } {
    const { first, end } = this.blocksOf(index);
    if (this.#skew === undefined) return { first, end };
    const shared = (block: number, neighbour: number): boolean => {
      if (neighbour < 0 || neighbour >= this.count) return false;
      const { first: from, end: to } = this.blocksOf(neighbour);
      return block >= from && block < to;
    };
    return {
      first: first + (shared(first, index - 1) ? 1 : 0),
      end: end - (shared(end - 1, index + 1) ? 1 : 0),
    };
  }

  /** Device bytes [start, end) that are written together with chunk `index`: itself and the zeros beside it. */
  spanOf(index: number): { start: number; end: number } {
    const { first, end } = this.blocksOf(index);
    const before = index > 0 && this.blocksOf(index - 1).end > first;
    const next = index + 1 < this.count ? this.#startOf(index + 1) : Number.POSITIVE_INFINITY;
    return { start: before ? this.#startOf(index) : first * BLOCK_BYTES, end: Math.min(end * BLOCK_BYTES, next) };
  }

  /** Rows [first, end) of the chunks that overlap device bytes [offset, offset + length). */
  covering(offset: number, length: number): { first: number; end: number } {
    if (length <= 0 || this.count === 0) return { first: 0, end: 0 };
    const firstBlock = Math.floor(offset / BLOCK_BYTES);
    const endBlock = Math.ceil((offset + length) / BLOCK_BYTES);
    let first = this.#upperBound(firstBlock - 1);
    if (first > 0 && this.blocksOf(first - 1).end > firstBlock) first -= 1;
    return { first, end: Math.max(first, this.#upperBound(endBlock - 1)) };
  }

  #nameOf(index: number): Digest {
    const bytes = this.digestBytesAt(index);
    return this.algorithm === 'span' ? spanName(bytes) : digestFromBytes(this.algorithm, bytes);
  }

  #startOf(index: number): number {
    return (this.#blockStart[index] as number) * BLOCK_BYTES + (this.#skew?.[index] ?? 0);
  }

  /** First row whose start block is > `block`. */
  #upperBound(block: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#blockStart[middle] as number) <= block) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
