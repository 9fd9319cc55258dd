import { type ByteBudget, createByteBudget } from '../../core/byte-budget.ts';
import { type Chunk, type ChunkRef, spanChunk } from '../../core/chunk.ts';
import type { ChunkRow, ChunkTable, Extent } from '../../core/chunk-table.ts';
import { type Digest, isContentDigest } from '../../core/digest.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import { decodeExtent } from '../../image/codec.ts';
import type { RangedBlob } from '../../image/layer-reader.ts';
import type { ChunkStore, GetOptions } from '../../store/chunk-store.ts';
import { chunkMissing } from '../../store/route.ts';
import { verifyChunk } from '../../store/verify-chunk.ts';
import type { DecodedExtent } from './decoded-extent.ts';
import { createExtentFetcher, type ExtentFetcher, type ExtentFetcherInit } from './extent-fetcher.ts';

/** Tuning of the origin store, see the defaults. */
export interface OriginStoreInit extends ExtentFetcherInit {
  readonly keptBytes?: number;
  readonly inFlightBytes?: number;
}

/** Told of what was decoded for a chunk when it holds other chunks too; doesn't look at it any more once it resolves. */
export type OnExtent = (ref: ChunkRef, decoded: Uint8Array) => Promise<void>;

/** Where the origin store learns how a blob is cut and how to read it; undefined for a blob nobody knows. */
export interface OriginBlobs {
  table(blob: Digest): ChunkTable | undefined | Promise<ChunkTable | undefined>;
  ranged(blob: Digest): RangedBlob | undefined | Promise<RangedBlob | undefined>;
  /** The window that the blob's table counts as `row`. */
  window?(blob: Digest, row: number): Promise<Uint8Array>;
}

/** Decoded extents kept because they hold further chunks, bytes over all blobs: a few spans of a SOCI or eStargz layer. */
const KEPT_BYTES = 32 * 1024 * 1024;
/**
 * Compressed and decoded bytes of requests under way, over all blobs: requests of 4 MiB on all connections of a registry
 * (16) with what they decode to, or six of 16 MiB of prefetch. A request that needs more goes alone.
 */
const IN_FLIGHT_BYTES = 256 * 1024 * 1024;
/** Part of it that prefetch leaves alone: a registry that hangs must not keep demand for another one waiting. */
const DEMAND_SHARE = 1 / 4;
/** Blobs whose fetcher is kept. */
const MAX_FETCHERS = 256;

/**
 * Chunks from the registry (design §8): ranged, coalesced, decoded, verified. Throws CHUNK_MISSING for a blob or row
 * that is not known, CHUNK_CORRUPT when a second fetch is wrong as well, or what the ranged read throws. `onFetched`
 * is told of compressed bytes as they arrive, `onExtent` of what was decoded for a chunk when it holds other ones.
 */
export function createOriginStore(
  components: {
    blobs: OriginBlobs;
    decode?: typeof decodeExtent;
    onFetched?: (blob: Digest, compressedBytes: number) => void;
    onExtent?: OnExtent;
  },
  init: OriginStoreInit = {},
): ChunkStore {
  return new OriginStore(components, init);
}

interface Located {
  readonly row: ChunkRow;
  readonly extent: Extent;
}

class OriginStore implements ChunkStore {
  readonly #blobs: OriginBlobs;
  readonly #decode: typeof decodeExtent;
  readonly #onFetched: (blob: Digest, compressedBytes: number) => void;
  readonly #onExtent: OnExtent | undefined;
  readonly #init: ExtentFetcherInit;
  readonly #kept: KeptExtents;
  readonly #budget: ByteBudget;
  readonly #fetchers = new Map<Digest, Promise<ExtentFetcher | undefined>>();
  #closed = false;

  constructor(
    components: {
      blobs: OriginBlobs;
      decode?: typeof decodeExtent;
      onFetched?: (blob: Digest, compressedBytes: number) => void;
      onExtent?: OnExtent;
    },
    init: OriginStoreInit,
  ) {
    this.#blobs = components.blobs;
    this.#decode = components.decode ?? decodeExtent;
    this.#onFetched = components.onFetched ?? (() => {});
    this.#onExtent = components.onExtent;
    this.#init = init;
    this.#kept = new KeptExtents(init.keptBytes ?? KEPT_BYTES);
    const most = init.inFlightBytes ?? IN_FLIGHT_BYTES;
    this.#budget = createByteBudget(most, { keptForUrgent: most * DEMAND_SHARE });
  }

  async has(ref: ChunkRef): Promise<boolean> {
    return !this.#closed && (await this.#locate(ref)) !== undefined;
  }

  async get(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    options.signal.throwIfAborted();
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the origin store is closed');
    const located = await this.#locate(ref);
    if (located === undefined) throw chunkMissing(ref, `layer ${ref.blob} is not known here`);
    if (located.extent.codec === 'stream') throw chunkMissing(ref, 'it can only be had by reading the whole layer');
    try {
      return await this.#attempt(ref, located, options);
    } catch (error) {
      if (!hasCode(error, 'CHUNK_CORRUPT')) throw error;
    }
    // A broken cache on the way is more likely than a wrong table: once more, from the wire.
    this.#kept.drop(ref.blob, located.row.extent);
    return this.#attempt(ref, located, options);
  }

  async close(): Promise<void> {
    this.#closed = true;
    const fetchers = [...this.#fetchers.values()];
    this.#fetchers.clear();
    for (const fetcher of await Promise.allSettled(fetchers)) {
      if (fetcher.status === 'fulfilled') fetcher.value?.close();
    }
    this.#kept.clear();
  }

  async #locate(ref: ChunkRef): Promise<Located | undefined> {
    const found = this.#blobs.table(ref.blob);
    // Without an await when the table is at hand, so that the reads of one turn stay in one batch.
    const table = found instanceof Promise ? await found : found;
    if (table === undefined || !(ref.index >= 0 && ref.index < table.count)) return undefined;
    const row = table.row(ref.index);
    return row.digest === ref.digest ? { row, extent: table.extent(row.extent) } : undefined;
  }

  async #attempt(ref: ChunkRef, { row, extent }: Located, options: GetOptions): Promise<Chunk> {
    const decoded = this.#kept.get(ref.blob, row.extent) ?? (await this.#fetch(ref, row.extent, extent, options));
    const { bytes } = decoded;
    const isNew = extent.decodedLength !== row.length && this.#kept.keep(ref.blob, row.extent, decoded);
    // Without a digest of its own it is as good as its extent, which the fetcher has checked.
    const verify = isContentDigest(ref.digest) ? verifyChunk : spanChunk;
    try {
      const part = bytes.subarray(row.innerOffset, row.innerOffset + row.length);
      const chunk = await verify(ref, part, { lent: () => decoded.release() });
      if (isNew) this.#offer(ref, decoded);
      return chunk;
    } catch (error) {
      decoded.release();
      throw error;
    }
  }

  #offer(ref: ChunkRef, decoded: DecodedExtent): void {
    if (this.#onExtent === undefined || !decoded.hold()) return;
    const release = (): void => decoded.release();
    // Who fails may have left something half done, which goes on using it.
    this.#onExtent(ref, decoded.bytes).then(release, () => {});
  }

  async #fetch(ref: ChunkRef, extentRow: number, extent: Extent, options: GetOptions): Promise<DecodedExtent> {
    const fetcher = await this.#fetcher(ref.blob);
    if (fetcher === undefined) throw chunkMissing(ref, `no registry is known for layer ${ref.blob}`);
    try {
      return await fetcher.get(extentRow, extent, options);
    } catch (error) {
      // Another repository may still have the blob: ask anew where it is.
      if (!options.signal.aborted && !hasCode(error, 'CHUNK_CORRUPT')) this.#fetchers.delete(ref.blob);
      throw error;
    }
  }

  #fetcher(blob: Digest): Promise<ExtentFetcher | undefined> {
    let fetcher = this.#fetchers.get(blob);
    if (fetcher === undefined) {
      fetcher = this.#makeFetcher(blob);
      this.#fetchers.set(blob, fetcher);
      const oldest = this.#fetchers.keys().next();
      if (this.#fetchers.size > MAX_FETCHERS && oldest.done !== true) this.#fetchers.delete(oldest.value);
      // An unknown blob, or one that could not be asked about, may be known next time.
      fetcher.then(
        (made) => made ?? this.#fetchers.delete(blob),
        () => this.#fetchers.delete(blob),
      );
    }
    return fetcher;
  }

  async #makeFetcher(blob: Digest): Promise<ExtentFetcher | undefined> {
    const ranged = await this.#blobs.ranged(blob);
    if (ranged === undefined) return undefined;
    const onFetched = (bytes: number): void => this.#onFetched(blob, bytes);
    const blobs = this.#blobs;
    const components = { blob: ranged, decode: this.#decode, budget: this.#budget, onFetched };
    if (blobs.window === undefined) return createExtentFetcher(components, this.#init);
    return createExtentFetcher({ ...components, window: (row) => windowOf(blobs, blob, row) }, this.#init);
  }
}

async function windowOf(blobs: OriginBlobs, blob: Digest, row: number): Promise<Uint8Array> {
  const window = await blobs.window?.(blob, row);
  if (window === undefined)
    throw new ShoalError('STATE_CORRUPT', `layer ${blob} has no window ${row}`, { layer: blob });
  return window;
}

/** Decoded extents, least recently used out first. Unverified unless they have a digest: each chunk taken from one is hashed. */
class KeptExtents {
  readonly #most: number;
  readonly #held = new Map<string, DecodedExtent>();
  #bytes = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Held for the caller. */
  get(blob: Digest, row: number): DecodedExtent | undefined {
    const key = `${blob}/${row}`;
    const decoded = this.#held.get(key);
    if (decoded === undefined) return undefined;
    this.#held.delete(key);
    this.#held.set(key, decoded);
    decoded.hold();
    return decoded;
  }

  /** False when it was kept already, or is too large. */
  keep(blob: Digest, row: number, decoded: DecodedExtent): boolean {
    const key = `${blob}/${row}`;
    if (this.#held.has(key) || decoded.bytes.byteLength > this.#most) return false;
    decoded.hold();
    this.#held.set(key, decoded);
    this.#bytes += decoded.bytes.byteLength;
    for (const oldest of this.#held.keys()) {
      if (this.#bytes <= this.#most) break;
      this.#remove(oldest);
    }
    return true;
  }

  drop(blob: Digest, row: number): void {
    this.#remove(`${blob}/${row}`);
  }

  clear(): void {
    for (const key of [...this.#held.keys()]) this.#remove(key);
  }

  #remove(key: string): void {
    const decoded = this.#held.get(key);
    if (decoded === undefined) return;
    this.#held.delete(key);
    this.#bytes -= decoded.bytes.byteLength;
    decoded.release();
  }
}
