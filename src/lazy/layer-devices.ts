import type { ChunkTable } from '../core/chunk-table.ts';
import { ChunkTableBuilder } from '../core/chunk-table-builder.ts';
import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import { edgesByDevice } from '../image/file-edges.ts';
import type { DeviceContent, LayerContent } from '../image/layer-reader.ts';
import { emptyDir } from '../image/layer-tree.ts';
import { encodeTree } from '../image/tree-codec.ts';
import type { BlobDevice, BlobSource } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/** The data blobs of Nydus images: devices for the layers that lie on them, layers without files of their own. */
export interface LayerDevices {
  /** The layer when all of it is in the store: a crash may have come between it and its devices. */
  known(layer: Digest): Promise<BlobDevice | undefined>;
  /** Keeps the devices of a layer. Throws UNSUPPORTED_LAYER for one that is in the store with other chunks. */
  keep(layer: Pick<LayerContent, 'tree' | 'devices'>, format: string, source: BlobSource): Promise<void>;
  /** Keeps a data blob that no file lies on, so that it can be a layer. */
  keepUnused(blob: Digest, format: string, source: BlobSource): Promise<void>;
}

/** The tree of a blob that holds data only. */
const NO_FILES = encodeTree({ root: { ...emptyDir(), implied: true } });

export function createLayerDevices({ blobs }: { blobs: BlobStore }): LayerDevices {
  async function keepOne(
    content: DeviceContent & { readonly edges: Uint32Array | undefined },
    format: string,
    source: BlobSource,
  ): Promise<void> {
    const { digest, remote, size, chunks, windows, edges } = content;
    const before = await blobs.open(digest);
    if (before !== undefined && before.table.count === 0 && chunks.count > 0) await blobs.remove(digest);
    const device = await blobs.create(digest, {
      chunks,
      tree: NO_FILES,
      edges,
      ...(windows === undefined ? {} : { windows }),
      info: { format, size, sources: [source], devices: [], ...(remote === undefined ? {} : { remote }) },
    });
    if (!holdsChunks(device.table, chunks)) {
      throw new ShoalError('UNSUPPORTED_LAYER', `blob ${digest} is known with other chunks`, { layer: digest });
    }
  }

  return {
    async known(layer) {
      const known = await blobs.open(layer);
      for (const device of known?.info.devices ?? []) if ((await blobs.open(device)) === undefined) return undefined;
      return known;
    },
    async keep({ tree, devices = [] }, format, source) {
      // The files of all images that use the blob may differ; those of the first one are as good as any.
      const edges = devices.length === 0 ? [] : edgesByDevice(tree);
      for (const [at, each] of devices.entries()) await keepOne({ ...each, edges: edges[at] }, format, source);
    },
    async keepUnused(blob, format, source) {
      const chunks = new ChunkTableBuilder({ compressedSize: 0 }).build();
      const info = { format, size: 0, sources: [source], devices: [] };
      await blobs.create(blob, { chunks, tree: NO_FILES, info });
    },
  };
}

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
