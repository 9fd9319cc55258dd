import type { BlockMap } from '../core/block-map.ts';
import type { Chunk, ChunkRef } from '../core/chunk.ts';
import type { ChunkTable } from '../core/chunk-table.ts';
import type { Digest } from '../core/digest.ts';
import type { Urgency } from './chunk-store.ts';
import type { RowRun } from './demand-order.ts';

/** Where a blob may be fetched from: a repository of a registry. */
export interface BlobSource {
  readonly registry: string;
  readonly repository: string;
}

/** What is known of a blob besides its table and tree. */
export interface BlobInfo {
  /** Layer format as shown to people. */
  readonly format: string;
  /** Why it is read the way it is, for people. */
  readonly why?: string;
  /** Compressed bytes in the registry. */
  readonly size: number;
  readonly sources: readonly BlobSource[];
  /** Leading device bytes worth fetching before they are asked for. */
  readonly prefetchBytes?: number;
  /** The layer has directories that none of its entries names: what lies below decides their attributes. */
  readonly impliesDirs?: true;
  /**
   * The blobs that the tree's device numbers mean, where that is not just this one: a Nydus bootstrap lies on the image's
   * data blobs, and those, as layers of their own, hold no files and lie on nothing.
   */
  readonly devices?: readonly Digest[];
  /** The blob in the registry, where the device does not go by its digest: a `tar.gz` that a Nydus image refers to. */
  readonly remote?: Digest;
}

/** Counters of one device since it was opened. */
export interface DeviceStats {
  /** Bytes present, a multiple of 4096. */
  readonly presentBytes: number;
  /** Uncompressed chunk bytes by the name of the source that yielded them. */
  readonly bytesBySource: Readonly<Record<string, number>>;
  /** Chunk reads under way. */
  readonly inFlight: number;
  /** Chunks on disk that were found not to match their digest, and forgotten. */
  readonly corrupt: number;
}

/** One layer's uncompressed bytes as a sparse local file that is filled as it is read; also a trap's device. */
export interface BlobDevice {
  readonly id: number;
  readonly name: string;
  readonly blob: Digest;
  readonly path: string;
  readonly size: number;
  readonly fd: number;
  readonly presence: BlockMap;
  readonly table: ChunkTable;
  readonly info: BlobInfo;
  /** Rows that an earlier start of this layer needed, first to last; empty when none was recorded. */
  readonly startOrder: readonly RowRun[];
  /** Every block is present and known to be on disk. */
  readonly complete: boolean;
  /** Calls back once, when `complete` becomes true, or soon when it is already. Returns how to stop that. */
  onComplete(callback: () => void): () => void;
  /**
   * Resolves when every block that touches [offset, offset + length) holds verified bytes in the file. Callers share
   * the read of a chunk. Throws the signal's reason, STORE_IO (errno says why) or what the source threw. A `demand`
   * read that continues an earlier one also starts reading ahead.
   */
  fill(offset: number, length: number, options: { signal: AbortSignal; urgency?: Urgency }): Promise<void>;
  /** The chunk of this row, read from the file and verified. Throws CHUNK_MISSING when absent or found corrupt. */
  readChunk(row: number, options: { signal: AbortSignal }): Promise<Chunk>;
  /**
   * Its bytes for a neighbour, who hashes what it receives: hashed here too, unless they were in the last minutes and
   * nobody has written to the file since. Throws as `readChunk`. The buffer is the caller's to free.
   */
  lendBytes(row: number, options: { signal: AbortSignal }): Promise<Uint8Array>;
  /** Hashes what is present in the range and forgets what is wrong; the next `fill` fetches that again. */
  verifyRange(
    offset: number,
    length: number,
    options: { signal: AbortSignal },
  ): Promise<{ readonly checked: number; readonly dropped: number }>;
  /** Takes every chunk for present: whoever made the file has written their verified bytes. Made durable soon. */
  adopt(): void;
  /**
   * What the extent of chunk `row` decodes to, from `source`: the extent's other chunks, when they match their digests
   * and are absent, are kept, so that their compressed bytes are not fetched again. Never throws.
   */
  offerExtent(row: number, decoded: Uint8Array, source: string): Promise<void>;
  /** What names chunk `row` to a source. */
  ref(row: number): ChunkRef;
  hasChunk(row: number): boolean;
  /**
   * Settles with the read of this row that is under way (resolved: it is present), undefined when there is none. Does
   * not keep it going; with `demand` it goes before reads that nobody waits for.
   */
  underWay(row: number, urgency: Urgency): Promise<void> | undefined;
  stats(): DeviceStats;
  /** Resolves when what is present now survives a power cut; false (and logged) when that failed. */
  flush(): Promise<boolean>;
  /** Aborts reads, makes what is present durable and closes the files. Idempotent. */
  close(): Promise<void>;
}
