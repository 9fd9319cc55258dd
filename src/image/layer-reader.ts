import type { ChunkTable } from '../core/chunk-table.ts';
import type { Digest } from '../core/digest.ts';
import type { LayerTree } from './layer-tree.ts';

/** How a range is read. */
export interface ReadOptions {
  readonly signal: AbortSignal;
  /**
   * Told of bytes as they arrive: the first `filled` of `bytes` are there. Never called by a blob that has them at
   * once; starts over, with other `bytes`, when a read is tried again.
   */
  readonly onBytes?: OnBytes | undefined;
  /** Does somebody wait for it (default), or is it fetched ahead. */
  readonly urgency?: 'demand' | 'prefetch' | undefined;
}

/** See `ReadOptions`. */
export type OnBytes = (bytes: Uint8Array, filled: number) => void;

/** A blob of a registry (or a file) that is read by range, never as a whole. */
export interface RangedBlob {
  readonly digest: Digest;
  /** Length in bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `offset`, the caller's to keep or free; throws SOURCE_FAILED, RANGE_MISMATCH, … and never returns fewer bytes. */
  read(offset: number, length: number, options: ReadOptions): Promise<Uint8Array>;
}

/** A layer as its manifest (or the snapshot labels) describe it. Annotations are trusted: they came by digest. */
export interface LayerDescriptor {
  readonly digest: Digest;
  /** Bytes in the registry; undefined when only labels are known. */
  readonly size?: number;
  readonly mediaType?: string;
  readonly annotations: Readonly<Record<string, string>>;
}

/** What every format becomes: a file tree, and how to obtain each piece of data. */
export interface LayerContent {
  readonly tree: LayerTree;
  readonly chunks: ChunkTable;
  /** Device range worth fetching before it is asked for ([0, n) bytes of the device), from the format's own hints. */
  readonly prefetchBytes?: number;
  /** The devices the tree's extents number, where they are not just the layer's own blob: Nydus bootstraps. */
  readonly devices?: readonly DeviceContent[];
}

/** A blob, apart from the layer's own, that a layer's files lie in. */
export interface DeviceContent {
  readonly digest: Digest;
  /** The blob in the registry, where the device does not go by its digest. */
  readonly remote?: Digest;
  /** Length in the registry, bytes. */
  readonly size: number;
  readonly chunks: ChunkTable;
  /** What its `deflate` extents need of the output before them, as `encodeWindows` makes it. */
  readonly windows?: Uint8Array;
}

/** Opens another blob of the image's repository, of whatever length. */
export type OpenBlob = (digest: Digest, options: { signal: AbortSignal }) => Promise<RangedBlob>;

/** A layer's index as somebody may have it already, by the digest that the layer's annotations name. */
export interface LayerIndexBytes {
  readonly digest: Digest;
  /** They hash to the digest; undefined: they are read from the layer. */
  readonly bytes: Uint8Array | undefined;
  /** Told of bytes that were read from the layer and hash to the digest. */
  keep(bytes: Uint8Array): unknown;
}

/**
 * One image format. `probe` is cheap and false for a layer of another format; `read` fetches the index by range,
 * verifies it against the descriptor before believing it, and throws INVALID_LAYER, UNSUPPORTED_LAYER or TOO_LARGE.
 */
export interface LayerReader {
  /** Format name as shown to people: `estargz`. */
  readonly format: string;
  probe(layer: LayerDescriptor, blob: RangedBlob, options: { signal: AbortSignal }): Promise<boolean>;
  read(
    layer: LayerDescriptor,
    blob: RangedBlob,
    options: { signal: AbortSignal; openBlob?: OpenBlob; index?: LayerIndexBytes },
  ): Promise<LayerContent>;
}
