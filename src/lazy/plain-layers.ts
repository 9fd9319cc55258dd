import type { Digest } from '../core/digest.ts';
import { ShoalError, withContext } from '../errors.ts';
import { encodeLayerIndex, type LayerIndex } from '../image/layer-index/layer-index.ts';
import type { RangedBlob } from '../image/layer-reader.ts';
import type { PassThreads } from '../image/pass/pass-threads.ts';
import type { Reference } from '../image/reference.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { DiffIds } from './diff-ids.ts';
import { acceptedIndex, isRanged, type LocalIndexes } from './local-indexes.ts';

/** The image a layer is of, and the image manifest it was named by. */
export interface LayerOrigin extends Reference {
  readonly manifest: Digest | undefined;
}

/** Layers without an index of their own: plain `tar.gz` and `tar`. */
export interface PlainLayers {
  /**
   * The layer's device: lazy when there is an index for it, else complete after one pass over the layer, which leaves an
   * index for the next time. Throws UNSUPPORTED_LAYER, INVALID_LAYER, TOO_LARGE, STORE_IO or what reading throws.
   */
  open(
    blob: RangedBlob,
    origin: LayerOrigin,
    options: { readonly signal: AbortSignal; readonly onBytes: (bytes: number) => void },
  ): Promise<BlobDevice>;
}

/** Where else an index may come from, asked in order; each has its own policy on whom to believe. */
export interface IndexSource {
  /** How it is called in `shoal status`. */
  readonly name: string;
  /** Bytes of an index for this layer that may be believed; undefined when there is none. */
  find(layer: Digest, origin: LayerOrigin, options: { signal: AbortSignal }): Promise<Uint8Array | undefined>;
}

export function createPlainLayers(
  components: {
    blobs: BlobStore;
    threads: PassThreads;
    indexes: LocalIndexes;
    others?: readonly IndexSource[];
    /** What layers must be uncompressed. */
    diffIds?: DiffIds;
    log: Logger;
    /** Told of layers that are in the store and have an index. */
    onIndexed?: (layer: Digest) => void;
    /** Told of compressed bytes as they arrive. */
    onFetched?: (bytes: number) => void;
  },
  init: { wholeBytesMax: number; maxEntries: number },
): PlainLayers {
  const { blobs, threads, indexes, log } = components;
  const sources: readonly IndexSource[] = [
    { name: 'this node', find: (layer) => indexes.get(layer) },
    ...(components.others ?? []),
  ];

  /** Throws INVALID_LAYER when the image's config says that the layer is something else uncompressed. */
  async function checkDiffId(found: Digest, blob: RangedBlob, origin: LayerOrigin, signal: AbortSignal): Promise<void> {
    const expected = await components.diffIds?.of(blob.digest, origin, { signal });
    if (expected === undefined || expected === found) return;
    throw new ShoalError('INVALID_LAYER', `uncompressed it is ${found}, the image's config says ${expected}`);
  }

  /** The first index that is about this layer and well-formed. */
  async function findIndex(blob: RangedBlob, origin: LayerOrigin, signal: AbortSignal) {
    for (const { name, find } of sources) {
      try {
        const bytes = await find(blob.digest, origin, { signal });
        if (bytes === undefined) continue;
        const index = acceptedIndex(blob.digest, bytes);
        if (index.chunks.compressedSize !== blob.size)
          throw new ShoalError('INVALID_LAYER', 'the index is for another size');
        await checkDiffId(index.diffId, blob, origin, signal);
        if (name !== 'this node') await indexes.put(blob.digest, bytes);
        return { index, name };
      } catch (error) {
        signal.throwIfAborted();
        if (name === 'this node') await indexes.remove(blob.digest);
        log.warn('a layer index is not used', {
          layer: blob.digest,
          from: name,
          why: withContext(error, {}).describe(),
        });
      }
    }
    return undefined;
  }

  async function passOver(
    blob: RangedBlob,
    origin: LayerOrigin,
    options: { signal: AbortSignal; onBytes: (bytes: number) => void },
  ): Promise<BlobDevice> {
    const { registry, repository } = origin;
    const staged = await blobs.stage();
    try {
      const onBytes = (bytes: number): void => {
        options.onBytes(bytes);
        components.onFetched?.(bytes);
      };
      const { signal } = options;
      // Asked for meanwhile, so that it is known at the end.
      void components.diffIds?.of(blob.digest, origin, { signal }).catch(() => {});
      const target = { fd: staged.fd, maxEntries: init.maxEntries };
      const passed = await threads.pass(blob, target, { signal, onBytes });
      await checkDiffId(passed.diffId, blob, origin, signal);
      const isSmall = blob.size <= init.wholeBytesMax;
      const index: LayerIndex = { layer: blob.digest, ...passed };
      const isKept = !isSmall && isRanged(index);
      if (isKept) await indexes.put(blob.digest, encodeLayerIndex(index));
      const device = await blobs.create(blob.digest, {
        chunks: passed.chunks,
        tree: passed.tree,
        staged,
        ...(passed.windows === undefined ? {} : { windows: passed.windows }),
        info: {
          format: passed.packing,
          why: isSmall ? 'fetched whole: it is small' : 'fetched whole: there was no index for it',
          size: blob.size,
          sources: [{ registry, repository }],
          ...(passed.impliesDirs ? { impliesDirs: true as const } : {}),
        },
      });
      if (isKept) components.onIndexed?.(blob.digest);
      return device;
    } finally {
      await staged.discard();
    }
  }

  return {
    async open(blob, origin, options) {
      const { registry, repository } = origin;
      const found = blob.size <= init.wholeBytesMax ? undefined : await findIndex(blob, origin, options.signal);
      if (found === undefined) return await passOver(blob, origin, options);
      const { index, name } = found;
      const device = await blobs.create(blob.digest, {
        chunks: index.chunks,
        tree: index.tree,
        edges: index.edges,
        ...(index.windows === undefined ? {} : { windows: index.windows }),
        info: {
          format: index.packing,
          why: `index from ${name}`,
          size: blob.size,
          sources: [{ registry, repository }],
          ...(index.impliesDirs ? { impliesDirs: true as const } : {}),
        },
      });
      components.onIndexed?.(blob.digest);
      return device;
    },
  };
}
