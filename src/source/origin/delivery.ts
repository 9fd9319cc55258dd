import { type ByteBudget, createByteBudget } from '../../core/byte-budget.ts';
import { freeBytes } from '../../core/byte-pool.ts';
import type { Extent } from '../../core/chunk-table.ts';
import type { GetOptions } from '../../store/chunk-store.ts';

/** An extent somebody wants, and whom to tell. */
export interface Job {
  readonly extent: Extent;
  readonly options: GetOptions;
  readonly resolve: (part: Part) => void;
  readonly reject: (error: unknown) => void;
}

/** A job's bytes within what a request brought. */
export interface Part {
  readonly bytes: Uint8Array;
  /** Runs the decoder when the request has memory left for what it makes; rejects when `options.signal` fires before. */
  readonly decode: <T>(work: () => Promise<T>) => Promise<T>;
  /** To be called once: the bytes are not needed any more, and `unused` when nobody may still be looking at them. */
  readonly release: (unused: boolean) => void;
}

/**
 * Decoded bytes that one request's extents may take at once (one that is larger goes alone): decoding 4 MiB extents,
 * enough for all threads of the pool.
 */
const DECODE_BYTES = 16 * 1024 * 1024;

/** First byte after a job's extent in the blob. */
export function endOf({ extent }: Job): number {
  return extent.offset + extent.length;
}

/** Bytes a request for these jobs holds in memory at most: what it brings, and what is being decoded of it. */
export function bytesHeld(batch: readonly Job[]): number {
  return spanOf(batch) + decodeBytes(batch).most;
}

/** Compressed bytes from the first job to the end of the last; `batch` in blob order. */
export function spanOf(batch: readonly Job[]): number {
  return batch.reduce((end, job) => Math.max(end, endOf(job)), 0) - (batch[0] as Job).extent.offset;
}

function decodeBytes(batch: readonly Job[]): { all: number; most: number } {
  let all = 0;
  let largest = 0;
  for (const { extent } of batch) {
    all += decodedBytes(extent);
    largest = Math.max(largest, decodedBytes(extent));
  }
  return { all, most: Math.min(all, Math.max(DECODE_BYTES, largest)) };
}

/** New memory that decoding takes: what is not compressed stays where it is. */
function decodedBytes({ codec, decodedLength }: Extent): number {
  return codec === 'none' ? 0 : decodedLength;
}

/** Hands the extents of one request out as soon as they are there, so that the first need not wait for the last. */
export class Delivery {
  readonly #batch: readonly Job[];
  readonly #ended: () => void;
  /** Undefined when all extents may be decoded at once. */
  readonly #decoding: ByteBudget | undefined;
  /** Jobs before this one have their bytes. */
  #next = 0;
  /** Extents not decoded yet, and the request itself. */
  #users: number;
  #freeable = true;
  #buffer: ArrayBufferLike | undefined;

  /** `batch` in blob order; `ended` is called once, when none of what `bytesHeld` counts is needed any more. */
  constructor(batch: readonly Job[], ended: () => void) {
    this.#batch = batch;
    this.#ended = ended;
    this.#users = batch.length + 1;
    const { all, most } = decodeBytes(batch);
    if (all > most) this.#decoding = createByteBudget(most);
  }

  /** The first `filled` of `bytes` are there. */
  upTo(bytes: Uint8Array, filled: number): void {
    const offset = (this.#batch[0] as Job).extent.offset;
    for (; this.#next < this.#batch.length; this.#next += 1) {
      const job = this.#batch[this.#next] as Job;
      if (endOf(job) - offset > filled) return;
      this.#buffer ??= bytes.buffer;
      // Who left is not told, and so will not release.
      if (job.options.signal.aborted) this.#release(bytes, true);
      else job.resolve(this.#part(job, bytes, job.extent.offset - offset));
    }
  }

  /** All of it is there. */
  complete(bytes: Uint8Array): void {
    this.upTo(bytes, bytes.byteLength);
    this.#release(bytes, true);
  }

  /** No more will come. */
  fail(error: unknown): void {
    const left = this.#batch.slice(this.#next);
    this.#next = this.#batch.length;
    for (const { reject } of left) reject(error);
    this.#leave(left.length + 1, false);
  }

  #part({ extent, options }: Job, bytes: Uint8Array, start: number): Part {
    const decoding = this.#decoding;
    return {
      bytes: bytes.subarray(start, start + extent.length),
      decode: (work) => (decoding === undefined ? work() : decoding.use(decodedBytes(extent), options, work)),
      release: (unused) => this.#release(bytes, unused),
    };
  }

  /** The last user frees the buffer, unless the request was tried again and there were several. */
  #release(bytes: Uint8Array, unused: boolean): void {
    this.#leave(1, unused);
    if (this.#users > 0 || !this.#freeable || bytes.buffer !== this.#buffer) return;
    freeBytes(new Uint8Array(this.#buffer));
  }

  #leave(users: number, unused: boolean): void {
    this.#users -= users;
    this.#freeable &&= unused;
    if (this.#users === 0) this.#ended();
  }
}
