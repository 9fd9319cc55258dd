import type { Digest } from '../core/digest.ts';
import type { SharedIndexes } from '../source/peer/data/index-request.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { LocalIndexes } from './local-indexes.ts';

/**
 * The indexes that neighbours may have: of layers that are in the store and may be shared. Without the layer nobody knows
 * of which images it was, and an index says what files a layer has.
 */
export function createSharedIndexes(components: {
  indexes: LocalIndexes;
  blobs: Pick<BlobStore, 'opened'>;
  shareable: (blob: Digest) => boolean;
}): SharedIndexes {
  const { indexes, blobs, shareable } = components;
  const mayGive = (layer: Digest): boolean => blobs.opened(layer) !== undefined && shareable(layer);
  return {
    sizeOf: async (layer) => (mayGive(layer) ? await indexes.sizeOf(layer) : undefined),
    read: async (layer) => (mayGive(layer) ? await indexes.get(layer) : undefined),
    list: async () => (await indexes.list()).filter(mayGive),
  };
}
