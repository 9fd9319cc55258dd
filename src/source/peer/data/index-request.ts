import { MAX_CHUNK_BYTES } from '../../../core/chunk.ts';
import { type Digest, parseDigest, sha256 } from '../../../core/digest.ts';

/** Indexes of plain layers that this node gives to neighbours; each is asked for by its layer. */
export interface SharedIndexes {
  /** Bytes of the layer's index; undefined when there is none, or none that may be given away. */
  sizeOf(layer: Digest): Promise<number | undefined>;
  read(layer: Digest): Promise<Uint8Array | undefined>;
  /** Layers there is an index for that may be given away. */
  list(): Promise<readonly Digest[]>;
}

/** Longest index that goes from neighbour to neighbour, bytes, as a chunk: of a layer of some 3 GB. */
export const MAX_SENT_INDEX_BYTES = MAX_CHUNK_BYTES;

const TARGET = /^\/index\/(sha256|sha512)\/([0-9a-f]{64,128})$/;

/** What a node announces that has an index of the layer: the name of no chunk. */
export function indexKey(layer: Digest): Digest {
  return sha256(`shoal index of ${layer}`);
}

/** The request target for the index of a layer: `/index/<algorithm>/<hex>`. */
export function indexTarget(layer: Digest): string {
  return `/index/${layer.replace(':', '/')}`;
}

/** The layer whose index is asked for; undefined for anything that `indexTarget` does not make. Never throws. */
export function parseIndexTarget(target: unknown): Digest | undefined {
  const [, algorithm, hex] = (typeof target === 'string' ? TARGET.exec(target) : undefined) ?? [];
  try {
    return algorithm === undefined ? undefined : parseDigest(`${algorithm}:${hex}`);
  } catch {
    return undefined;
  }
}
