import type { ChunkTable } from '../core/chunk-table.ts';
import { ChunkTableBuilder } from '../core/chunk-table-builder.ts';
import type { Digest } from '../core/digest.ts';
import { orAborted } from '../core/or-aborted.ts';
import { atMost } from '../core/turns.ts';
import { hasCode, ShoalError, withContext } from '../errors.ts';
import type { DeviceContent, LayerDescriptor, LayerReader, RangedBlob } from '../image/layer-reader.ts';
import { emptyDir, type LayerTree } from '../image/layer-tree.ts';
import { readLayer } from '../image/readers/index.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import { encodeTree } from '../image/tree-codec.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice, BlobSource } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/** Turns layers of a registry into devices of the blob store: index fetched by range, verified, stored. */
export interface LayerOpener {
  /**
   * The device of this layer, made if need be. Throws UNSUPPORTED_LAYER, INVALID_LAYER, SOURCE_FAILED … with image
   * and layer named. Calls for the same layer join; a caller that gives up does not stop the others.
   */
  open(reference: Reference, layer: LayerDescriptor, options: { signal: AbortSignal }): Promise<BlobDevice>;
  /** Keeps a data blob that no file lies on, so that it can be a layer. */
  keepUnused(reference: Reference, blob: Digest): Promise<void>;
}

/** How long opening one layer may take in all, whoever waits for it. */
const OPEN_DEADLINE_MS = 60_000;
/** Layers opened at a time, of all images: each may hold an index of the largest size in memory. */
const OPENING_MAX = 8;

/** What wrong bytes of an index end in. */
const WRONG_BYTES = ['INVALID_LAYER', 'INVALID_CHUNK_TABLE', 'CHUNK_CORRUPT'] as const;

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
    const known = await knownLayer(layer.digest);
    if (known !== undefined) {
      for (const blob of [layer.digest, ...(known.info.devices ?? [])]) await components.blobs.addSource(blob, source);
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
        ...(content.devices === undefined ? {} : { devices: content.devices.map(({ digest }) => digest) }),
      },
    });
    // After the layer itself, which keeps them from being collected.
    for (const each of content.devices ?? []) await keepDevice(each, format, source);
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
      const read = await readLayer(layer, blob, {
        signal,
        readers: components.readers,
        openBlob: (digest, options) => opener.openBlob(reference, { digest }, options),
      });
      return { blob, ...read };
    };
    try {
      return await from(components.registry);
    } catch (error) {
      const isWrong = WRONG_BYTES.some((code) => hasCode(error, code));
      const direct = isWrong ? await components.direct?.(reference) : undefined;
      if (direct === undefined) throw error;
      return await from(direct);
    }
  }

  /** The layer when all of it is in the store: a crash may have come between it and its devices. */
  async function knownLayer(blob: Digest): Promise<BlobDevice | undefined> {
    const known = await components.blobs.open(blob);
    for (const device of known?.info.devices ?? []) {
      if ((await components.blobs.open(device)) === undefined) return undefined;
    }
    return known;
  }

  /** A data blob: a device for the layers that lie on it, and no files when it is taken for a layer itself. */
  async function keepDevice(content: DeviceContent, format: string, source: BlobSource): Promise<void> {
    const { digest, size, chunks } = content;
    const before = await components.blobs.open(digest);
    if (before !== undefined && before.table.count === 0 && chunks.count > 0) await components.blobs.remove(digest);
    const device = await components.blobs.create(digest, {
      chunks,
      tree: NO_FILES,
      info: { format, size, sources: [source], devices: [] },
    });
    if (!holdsChunks(device.table, chunks)) {
      throw new ShoalError('UNSUPPORTED_LAYER', `blob ${digest} is known with other chunks`, { layer: digest });
    }
  }

  return {
    async keepUnused({ registry, repository }, digest) {
      const info = { format: 'nydus', size: 0, sources: [{ registry, repository }], devices: [] };
      const chunks = new ChunkTableBuilder({ compressedSize: 0 }).build();
      await components.blobs.create(digest, { chunks, tree: NO_FILES, info });
    },
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

/** The tree of a blob that holds data only. */
const NO_FILES = encodeTree({ root: { ...emptyDir(), implied: true } });

/** True when every chunk of `wanted` is in `table`, at the same place. */
function holdsChunks(table: ChunkTable, wanted: ChunkTable): boolean {
  if (table === wanted) return true;
  for (let row = 0; row < wanted.count; row += 1) {
    const { deviceOffset, length, digest } = wanted.row(row);
    const { first, end } = table.covering(deviceOffset, length);
    const found = end - first === 1 ? table.row(first) : undefined;
    if (found?.deviceOffset !== deviceOffset || found.length !== length || found.digest !== digest) return false;
  }
  return true;
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
