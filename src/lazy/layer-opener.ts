import type { Digest } from '../core/digest.ts';
import { orAborted } from '../core/or-aborted.ts';
import { atMost } from '../core/turns.ts';
import { hasCode, ShoalError, withContext } from '../errors.ts';
import type { LayerDescriptor, LayerReader, RangedBlob } from '../image/layer-reader.ts';
import type { LayerTree } from '../image/layer-tree.ts';
import { readLayer } from '../image/readers/index.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import { encodeTree } from '../image/tree-codec.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/** Turns layers of a registry into devices of the blob store: index fetched by range, verified, stored. */
export interface LayerOpener {
  /**
   * The device of this layer, made if need be. Throws UNSUPPORTED_LAYER, INVALID_LAYER, SOURCE_FAILED … with image
   * and layer named. Calls for the same layer join; a caller that gives up does not stop the others.
   */
  open(reference: Reference, layer: LayerDescriptor, options: { signal: AbortSignal }): Promise<BlobDevice>;
}

/** How long opening one layer may take in all, whoever waits for it. */
const OPEN_DEADLINE_MS = 60_000;
/** Layers opened at a time, of all images: each may hold an index of the largest size in memory. */
const OPENING_MAX = 8;

/** What an opener needs of the registry: the blob by range, its size found out when it is not known. */
export interface BlobOpener {
  openBlob(
    reference: Reference,
    blob: { digest: Digest; size?: number },
    options: { signal: AbortSignal },
  ): Promise<RangedBlob>;
}

export function createLayerOpener(components: {
  registry: BlobOpener;
  /** Past the mirrors of the image's registry, where it has any: what they gave may not be the layer it should be. */
  direct?: (reference: Reference) => Promise<BlobOpener | undefined>;
  blobs: BlobStore;
  readers: readonly LayerReader[];
  log: Logger;
}): LayerOpener {
  const opening = new Map<Digest, Promise<BlobDevice>>();
  const inTurn = atMost(OPENING_MAX);

  async function make(reference: Reference, layer: LayerDescriptor): Promise<BlobDevice> {
    const signal = AbortSignal.timeout(OPEN_DEADLINE_MS);
    const source = { registry: reference.registry, repository: reference.repository };
    const known = await components.blobs.open(layer.digest);
    if (known !== undefined) {
      await components.blobs.addSource(layer.digest, source);
      return known;
    }
    const startedMs = performance.now();
    const { blob, format, content } = await read(reference, layer, signal);
    const device = await components.blobs.create(layer.digest, {
      chunks: content.chunks,
      tree: encodeTree(content.tree),
      info: {
        format,
        size: blob.size,
        sources: [source],
        ...(content.prefetchBytes === undefined ? {} : { prefetchBytes: content.prefetchBytes }),
        ...(impliesDirs(content.tree) ? { impliesDirs: true as const } : {}),
      },
    });
    components.log.info('layer is lazy', {
      image: formatReference(reference),
      layer: layer.digest,
      format,
      chunks: content.chunks.count,
      tookMs: Math.round(performance.now() - startedMs),
    });
    return device;
  }

  async function read(reference: Reference, layer: LayerDescriptor, signal: AbortSignal) {
    const from = async (opener: BlobOpener) => {
      const blob = await opener.openBlob(reference, layer, { signal });
      return { blob, ...(await readLayer(layer, blob, { signal, readers: components.readers })) };
    };
    try {
      return await from(components.registry);
    } catch (error) {
      const direct = hasCode(error, 'INVALID_LAYER') ? await components.direct?.(reference) : undefined;
      if (direct === undefined) throw error;
      return await from(direct);
    }
  }

  return {
    async open(reference, layer, { signal }) {
      let shared = opening.get(layer.digest);
      if (shared === undefined) {
        shared = inTurn(() => make(reference, layer)).finally(() => opening.delete(layer.digest));
        shared.catch(() => {});
        opening.set(layer.digest, shared);
      }
      try {
        return await orAborted(shared, signal);
      } catch (cause) {
        const gaveUp = signal.aborted && cause === signal.reason;
        const error = gaveUp ? new ShoalError('DEADLINE_EXCEEDED', 'gave up waiting', { cause }) : cause;
        throw withContext(error, { image: formatReference(reference), layer: layer.digest }, 'SOURCE_FAILED');
      }
    },
  };
}

/** True when some directory below the root is implied; the root's attributes come from the container's own layer. */
function impliesDirs(tree: LayerTree): boolean {
  const stack = [tree.root];
  for (let dir = stack.pop(); dir !== undefined; dir = stack.pop()) {
    for (const child of dir.children.values()) {
      if (child.kind !== 'dir') continue;
      if (child.implied === true) return true;
      stack.push(child);
    }
  }
  return false;
}
