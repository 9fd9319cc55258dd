import { access, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { BLOCK_BYTES } from '../core/block-map.ts';
import { mergeLayers } from '../erofs/merge.ts';
import { writeErofsFile } from '../erofs/writer.ts';
import type { LayerTree } from '../image/layer-tree.ts';
import { decodeTree } from '../image/tree-codec.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { type RunDevices, storedBlob } from './run-devices.ts';

/** The EROFS images of runs, `<name>.erofs` in one folder. */
export interface Bootstraps {
  /**
   * The path of the run's image: layers bottom to top, merged and written whole, and the merged tree. With `reuse` one
   * that an earlier life of the daemon wrote is taken as it is, without its tree. Throws UNAVAILABLE when a layer is gone,
   * and what merging and writing throw.
   */
  make(
    run: { readonly name: string; readonly parts: RunDevices; readonly bottom: boolean },
    options: { reuse: boolean },
  ): Promise<{ readonly path: string; readonly tree?: LayerTree }>;
  remove(name: string): Promise<void>;
}

/** Merging and writing the largest image (millions of files) must end by then. */
const DEADLINE_MS = 120_000;

export function createBootstraps({ blobs }: { blobs: BlobStore }, { directory }: { directory: string }): Bootstraps {
  const pathOf = (name: string): string => join(directory, `${name}.erofs`);

  return {
    async make(run, { reuse }) {
      const path = pathOf(run.name);
      if (reuse && (await exists(path))) return { path };
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const devices = await Promise.all(
        run.parts.devices.map(async (blob) => {
          const { name, size } = await storedBlob(blobs, blob);
          return { tag: name, blocks: size / BLOCK_BYTES };
        }),
      );
      const layers = await Promise.all(
        run.parts.layers.map(async (layer) => ({
          tree: decodeTree(await blobs.readTree(layer.blob)),
          devices: layer.devices,
        })),
      );
      const tree = mergeLayers(layers, { bottom: run.bottom });
      await writeErofsFile(tree, { devices }, path, { signal: AbortSignal.timeout(DEADLINE_MS) });
      return { path, tree };
    },
    async remove(name) {
      await rm(pathOf(name), { force: true });
    },
  };
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
