import type { Digest } from '../core/digest.ts';
import { orAborted } from '../core/or-aborted.ts';
import { atMost } from '../core/turns.ts';
import { hasCode, ShoalError, withContext } from '../errors.ts';
import { edgesByDevice } from '../image/file-edges.ts';
import type { LayerDescriptor, LayerIndexBytes, LayerReader, RangedBlob } from '../image/layer-reader.ts';
import { impliesDirs } from '../image/layer-tree.ts';
import { readLayer } from '../image/readers/index.ts';
import { indexDigestOf } from '../image/readers/index-digest.ts';
import { isNydusBootstrap } from '../image/readers/rafs/nydus-labels.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import { encodeTree } from '../image/tree-codec.ts';
import type { Logger } from '../log.ts';
import type { Documents } from '../source/peer/data/documents.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { createLayerDevices } from './layer-devices.ts';
import { createPatience } from './patience.ts';
import type { PlainLayers } from './plain-layers.ts';
import type { SociLayers } from './soci-layers.ts';

/** Turns layers of a registry into devices of the blob store: index fetched by range, verified, stored. */
export interface LayerOpener {
  /**
   * The device of this layer, made if need be. Throws UNSUPPORTED_LAYER, INVALID_LAYER, SOURCE_FAILED … with image
   * and layer named. Calls for the same layer join; a caller that gives up does not stop the others.
   */
  open(
    reference: Reference,
    layer: LayerDescriptor,
    options: {
      readonly signal: AbortSignal;
      /** The image's manifest, which an index may refer to. */
      readonly manifestDigest?: Digest | undefined;
      readonly onProgress?: () => void;
    },
  ): Promise<BlobDevice>;
  /** Keeps a data blob that no file lies on, so that it can be a layer. */
  keepUnused(reference: Reference, blob: Digest): Promise<void>;
}

/** How long reading a layer's index may take in all, whoever waits for it. */
const OPEN_DEADLINE_MS = 60_000;
/** A layer that is read whole may take this long without a byte of any layer, and in all. */
const PASS_IDLE_MS = 60_000;
const PASS_DEADLINE_MS = 3_600_000;
/** Layers opened at a time, of all images: each may hold an index of the largest size in memory. */
const OPENING_MAX = 8;

/** What an opener needs of the registry: the blob by range, its size found out when it is not known. */
export interface BlobOpener {
  openBlob(
    reference: Reference,
    blob: { digest: Digest; size?: number },
    /** `tailBytes`: how much of its end will be wanted. */
    options: { signal: AbortSignal; tailBytes?: number },
  ): Promise<RangedBlob>;
}

/** Of a layer whose index is known only the footer is read, for where its data ends. */
const FOOTER_TAIL_BYTES = 4 * 1024;

/** What wrong bytes of an index, or of a layer that is read whole, end in. */
const WRONG_BYTES = ['INVALID_LAYER', 'INVALID_CHUNK_TABLE', 'CHUNK_CORRUPT'] as const;

export function createLayerOpener(components: {
  registry: BlobOpener;
  /** Past the mirrors of the image's registry, where it has any: what they gave may not be the layer it should be. */
  direct?: (reference: Reference) => Promise<BlobOpener | undefined>;
  blobs: BlobStore;
  readers: readonly LayerReader[];
  /** Reads plain layers that have a SOCI index. */
  soci?: SociLayers;
  /** Reads what no reader knows; without it that is UNSUPPORTED_LAYER. */
  plain?: PlainLayers;
  /** Where indexes are that neighbours have. */
  documents?: Documents | undefined;
  log: Logger;
}): LayerOpener {
  const opening = new Map<Digest, Promise<BlobDevice>>();
  const devices = createLayerDevices(components);
  /** Told of each piece of any layer that is read whole: who waits in line must see that the line moves. */
  const waiting = new Set<() => void>();
  const inTurn = atMost(OPENING_MAX);

  async function make(reference: Reference, layer: LayerDescriptor, manifest?: Digest): Promise<BlobDevice> {
    using patience = createPatience({
      firstMs: OPEN_DEADLINE_MS,
      idleMs: PASS_IDLE_MS,
      mostMs: PASS_DEADLINE_MS,
    });
    waiting.add(patience.progress);
    try {
      return await open(reference, layer, manifest, patience.signal);
    } finally {
      waiting.delete(patience.progress);
    }
  }

  async function open(
    reference: Reference,
    layer: LayerDescriptor,
    manifest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<BlobDevice> {
    const source = { registry: reference.registry, repository: reference.repository };
    const known = await devices.known(layer.digest);
    if (known !== undefined) {
      for (const blob of [layer.digest, ...(known.info.devices ?? [])]) await components.blobs.addSource(blob, source);
      return known;
    }
    const startedMs = performance.now();
    const device = await rightFrom(reference, layer, manifest, signal);
    components.log.info('layer is lazy', {
      image: formatReference(reference),
      layer: layer.digest,
      format: device.info.format,
      ...(device.info.why === undefined ? {} : { why: device.info.why }),
      chunks: device.table.count,
      tookMs: Math.round(performance.now() - startedMs),
    });
    return device;
  }

  /** Through the mirrors, and past them when what they gave is wrong. */
  async function rightFrom(
    reference: Reference,
    layer: LayerDescriptor,
    manifest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<BlobDevice> {
    try {
      return await read(components.registry, layer, reference, manifest, signal);
    } catch (error) {
      const isWrong = WRONG_BYTES.some((code) => hasCode(error, code));
      const direct = isWrong ? await components.direct?.(reference) : undefined;
      if (direct === undefined) throw error;
      return await read(direct, layer, reference, manifest, signal);
    }
  }

  /** With the layer's own index when it has one that a reader knows, else by a SOCI index, else as a plain layer. */
  async function read(
    opener: BlobOpener,
    layer: LayerDescriptor,
    reference: Reference,
    manifest: Digest | undefined,
    signal: AbortSignal,
  ): Promise<BlobDevice> {
    const { plain, readers, blobs } = components;
    const source = { registry: reference.registry, repository: reference.repository };
    const index = await indexOf(components.documents, reference, layer, signal);
    const tail = index?.bytes === undefined ? {} : { tailBytes: FOOTER_TAIL_BYTES };
    let blob: RangedBlob;
    let found: Awaited<ReturnType<typeof readLayer>>;
    try {
      blob = await opener.openBlob(reference, layer, { signal, ...tail });
    } catch (error) {
      index?.failed();
      throw error;
    }
    try {
      found = await readLayer(layer, blob, {
        ...{ signal, readers, ...tail },
        ...(index === undefined ? {} : { index }),
        openBlob: (digest, options) => opener.openBlob(reference, { digest }, options),
      });
    } catch (error) {
      // The tar of a Nydus bootstrap holds the bootstrap: as a layer it would be wrong.
      const isPlain = mayBeTar(layer) && !isNydusBootstrap(layer);
      if (!hasCode(error, 'UNSUPPORTED_LAYER') || !isPlain) throw error;
      const origin = { ...reference, manifest };
      const indexed = await components.soci?.open(blob, origin, { signal });
      if (indexed !== undefined) return indexed;
      if (plain === undefined) throw error;
      return await plain.open(blob, origin, { signal, onBytes: tellWaiting });
    } finally {
      index?.failed();
    }
    const { format, content } = found;
    const device = await blobs.create(layer.digest, {
      chunks: content.chunks,
      tree: encodeTree(content.tree),
      edges: content.devices === undefined ? edgesByDevice(content.tree)[0] : undefined,
      info: {
        format,
        why: 'index in the layer',
        size: blob.size,
        sources: [source],
        ...(content.prefetchBytes === undefined ? {} : { prefetchBytes: content.prefetchBytes }),
        ...(impliesDirs(content.tree) ? { impliesDirs: true as const } : {}),
        ...(content.devices === undefined ? {} : { devices: content.devices.map(({ digest }) => digest) }),
      },
    });
    // After the layer itself, which keeps them from being collected.
    await devices.keep(content, format, source);
    return device;
  }

  function tellWaiting(): void {
    for (const progress of waiting) progress();
  }

  return {
    async keepUnused({ registry, repository }, digest) {
      await devices.keepUnused(digest, 'nydus', { registry, repository });
    },
    async open(reference, layer, { signal, manifestDigest, onProgress }) {
      if (onProgress !== undefined) waiting.add(onProgress);
      let shared = opening.get(layer.digest);
      if (shared === undefined) {
        shared = inTurn(() => make(reference, layer, manifestDigest)).finally(() => opening.delete(layer.digest));
        shared.catch(() => {});
        opening.set(layer.digest, shared);
      }
      try {
        return await orAborted(shared, signal);
      } catch (cause) {
        const gaveUp = signal.aborted && cause === signal.reason;
        const error = gaveUp ? new ShoalError('DEADLINE_EXCEEDED', 'gave up waiting', { cause }) : cause;
        throw withContext(error, { image: formatReference(reference), layer: layer.digest }, 'SOURCE_FAILED');
      } finally {
        if (onProgress !== undefined) waiting.delete(onProgress);
      }
    },
  };
}

/** The layer's index from this node or a neighbour, where its annotations pin one. */
async function indexOf(
  documents: Documents | undefined,
  reference: Reference,
  layer: LayerDescriptor,
  signal: AbortSignal,
): Promise<(LayerIndexBytes & { failed(): void }) | undefined> {
  const digest = indexDigestOf(layer);
  if (documents === undefined || digest === undefined) return undefined;
  const found = await documents.find(digest, { image: formatReference(reference), subject: layer.digest, signal });
  if (found.bytes !== undefined) return { digest, bytes: found.bytes, keep() {}, failed() {} };
  return { digest, bytes: undefined, keep: (bytes) => found.keep(bytes), failed: () => found.failed() };
}

/** Media types of plain layers; what is unknown, because only labels are, may be one. */
const TAR_TYPE = /^application\/vnd\.(oci\.image\.layer\.|docker\.image\.rootfs\.)[a-z0-9.]*\btar([+.](gzip|zstd))?$/;

function mayBeTar({ mediaType }: LayerDescriptor): boolean {
  return mediaType === undefined || TAR_TYPE.test(mediaType);
}
