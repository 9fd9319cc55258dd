import { ShoalError } from '../errors.ts';
import { BLOCK_BYTES } from './block-map.ts';
import { MAX_CHUNK_BYTES } from './chunk.ts';
import {
  type Checkpoint,
  type ChunkInput,
  ChunkTable,
  type Codec,
  type Extent,
  TABLE_ALGORITHMS,
} from './chunk-table.ts';
import { type ChunkAlgorithm, chunkAlgorithm, digestBytes } from './digest.ts';

/** Windows one table can name: 24 bits on disk, and a blob of 64 TiB. */
const MAX_WINDOW_ROW = 0xfffffe;

/** Collects chunks in device order and refuses what can't be true; `build()` gives the table. */
export class ChunkTableBuilder {
  readonly #compressedSize: number;
  readonly #algorithm: ChunkAlgorithm;
  /** Bytes between the start of a chunk's block and the chunk, of a packed table. */
  readonly #skew: number[] | undefined;
  readonly #blockStart: number[] = [];
  readonly #length: number[] = [];
  readonly #extentOf: number[] = [];
  readonly #inner: number[] = [];
  #digests = new Uint8Array(32 * 64);
  readonly #extents: (Omit<Extent, 'decodedLength'> & { decodedLength: number })[] = [];
  readonly #extentRows = new Map<number, number>();
  /** End of the last chunk, bytes; a multiple of 4096 unless packed. */
  #end = 0;

  /** `packed`: chunks may start anywhere, so that neighbours share a block; else each starts a block of its own. */
  constructor(init: { compressedSize: number; algorithm?: ChunkAlgorithm; packed?: boolean }) {
    this.#compressedSize = checkedSize(init.compressedSize, 'blob size');
    this.#algorithm = init.algorithm ?? 'sha256';
    if (init.packed === true) this.#skew = [];
    if (!TABLE_ALGORITHMS.includes(this.#algorithm)) throw invalid(`chunk digests must not be ${this.#algorithm}`);
  }

  /** Appends one chunk. Throws INVALID_CHUNK_TABLE on overlap, misalignment, overflow or a range outside the blob. */
  add(chunk: ChunkInput): void {
    if (chunkAlgorithm(chunk.digest) !== this.#algorithm) {
      throw invalid(`chunk digest ${chunk.digest} is not ${this.#algorithm}`);
    }
    this.addRaw(chunk, digestBytes(chunk.digest));
  }

  /** `add` for a digest that is already 32 bytes. */
  addRaw(chunk: Omit<ChunkInput, 'digest'>, digest: Uint8Array): void {
    const index = this.#length.length;
    checkedSize(chunk.deviceOffset, `device offset of chunk ${index}`);
    if (!Number.isInteger(chunk.length) || chunk.length <= 0 || chunk.length > MAX_CHUNK_BYTES) {
      throw invalid(`chunk ${index} has length ${chunk.length}, allowed are 1 to ${MAX_CHUNK_BYTES}`);
    }
    const skew = chunk.deviceOffset % BLOCK_BYTES;
    if (skew !== 0 && this.#skew === undefined) throw invalid(`chunk ${index} is not 4096-aligned`);
    const startBlock = (chunk.deviceOffset - skew) / BLOCK_BYTES;
    if (chunk.deviceOffset < this.#end) throw invalid(`chunk ${index} overlaps the one before it`);
    const end = chunk.deviceOffset + chunk.length;
    const endBlock = Math.ceil(end / BLOCK_BYTES);
    if (endBlock >= 0xffffffff) throw invalid('device is larger than 16 TiB');
    if (digest.byteLength !== 32) throw invalid(`digest of chunk ${index} has ${digest.byteLength} bytes`);
    // Everything that can throw comes before the first push: a refused chunk leaves the builder as it was.
    checkedSize(chunk.innerOffset, `inner offset of chunk ${index}`);
    this.#extentOf.push(this.#extentFor(chunk, index));
    this.#blockStart.push(startBlock);
    this.#skew?.push(skew);
    this.#length.push(chunk.length);
    this.#inner.push(chunk.innerOffset);
    this.#keepDigest(index, digest);
    this.#end = this.#skew === undefined ? endBlock * BLOCK_BYTES : end;
  }

  /** One growing buffer: an object per digest would cost three times the digest. */
  #keepDigest(index: number, digest: Uint8Array): void {
    if (32 * (index + 1) > this.#digests.byteLength) {
      this.#digests = new Uint8Array(this.#digests.buffer.transfer(2 * this.#digests.byteLength));
    }
    this.#digests.set(digest, 32 * index);
  }

  /** The finished table. */
  build(): ChunkTable {
    return new ChunkTable({
      deviceSize: Math.ceil(this.#end / BLOCK_BYTES) * BLOCK_BYTES,
      compressedSize: this.#compressedSize,
      algorithm: this.#algorithm,
      blockStart: Uint32Array.from(this.#blockStart),
      ...(this.#skew === undefined ? {} : { skew: Uint16Array.from(this.#skew) }),
      length: Uint32Array.from(this.#length),
      extentOf: Uint32Array.from(this.#extentOf),
      inner: Uint32Array.from(this.#inner),
      digests: this.#digests.slice(0, 32 * this.#length.length),
      extents: this.#extents,
    });
  }

  #extentFor(chunk: Omit<ChunkInput, 'digest'>, index: number): number {
    const end = chunk.extentOffset + chunk.extentLength;
    checkedSize(chunk.extentOffset, `blob offset of chunk ${index}`);
    if (!Number.isInteger(chunk.extentLength) || chunk.extentLength <= 0 || chunk.extentLength > 2 * MAX_CHUNK_BYTES) {
      throw invalid(`chunk ${index} has a compressed length of ${chunk.extentLength}`);
    }
    if (!(end <= this.#compressedSize)) throw invalid(`chunk ${index} passes the end of the blob`);
    const needed = Math.max(chunk.innerOffset + chunk.length, chunk.decodedLength ?? 0);
    if (needed > 2 * MAX_CHUNK_BYTES) throw invalid(`chunk ${index} lies too deep in its compressed range`);
    if (chunk.codec === 'none' && needed > chunk.extentLength) {
      throw invalid(`chunk ${index} passes the end of its uncompressed range`);
    }
    const checkpoint = chunk.codec === 'deflate' ? checkedCheckpoint(chunk.checkpoint, index) : undefined;
    const digest = checkedDigest(chunk.extentDigest, index);
    if (digest === undefined && this.#algorithm === 'span') throw invalid(`chunk ${index} has no digest of any kind`);
    const known = this.#extentRows.get(chunk.extentOffset);
    if (known !== undefined) {
      const extent = this.#extents[known] as { length: number; codec: Codec; decodedLength: number };
      if (extent.length !== chunk.extentLength || extent.codec !== chunk.codec) {
        throw invalid(`chunk ${index} disagrees with another about the compressed range at ${chunk.extentOffset}`);
      }
      extent.decodedLength = Math.max(extent.decodedLength, needed);
      return known;
    }
    const row = this.#extents.length;
    this.#extentRows.set(chunk.extentOffset, row);
    this.#extents.push({
      offset: chunk.extentOffset,
      length: chunk.extentLength,
      codec: chunk.codec,
      decodedLength: needed,
      ...(checkpoint === undefined ? {} : { checkpoint }),
      ...(digest === undefined ? {} : { digest }),
    });
    return row;
  }
}

function checkedCheckpoint(checkpoint: Checkpoint | undefined, index: number): Checkpoint {
  if (checkpoint === undefined) throw invalid(`chunk ${index} has no checkpoint to start from`);
  const { bits, window } = checkpoint;
  if (!(Number.isInteger(bits) && bits >= 0 && bits <= 7)) throw invalid(`chunk ${index} starts at bit ${bits}`);
  if (window !== undefined && !(Number.isInteger(window) && window >= 0 && window <= MAX_WINDOW_ROW)) {
    throw invalid(`chunk ${index} names window ${window}`);
  }
  return { bits, window };
}

function checkedDigest(digest: Uint8Array | undefined, index: number): Uint8Array | undefined {
  if (digest === undefined) return undefined;
  if (digest.byteLength !== 32) throw invalid(`compressed range of chunk ${index} has a digest of another length`);
  // Its own memory: it may be a view of a large file that was parsed.
  return Uint8Array.from(digest);
}

function checkedSize(value: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(`${what} is ${value}`);
  return value;
}

function invalid(message: string): ShoalError {
  return new ShoalError('INVALID_CHUNK_TABLE', message);
}
