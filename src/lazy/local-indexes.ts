import { mkdir, readdir, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { type Digest, digestHex, parseDigest } from '../core/digest.ts';
import { hasCode, withContext } from '../errors.ts';
import { decodeLayerIndex, type LayerIndex } from '../image/layer-index/layer-index.ts';
import type { Logger } from '../log.ts';
import { readSealed, SEALED_HEADER_BYTES, writeSealed } from '../store/sealed-file.ts';

/** Layer indexes this node has, by layer; they outlive the layer's data. */
export interface LocalIndexes {
  /** The bytes of the layer's index; undefined when there is none. */
  get(layer: Digest): Promise<Uint8Array | undefined>;
  /** Its length, bytes. */
  sizeOf(layer: Digest): Promise<number | undefined>;
  /** Keeps an index that was built here, or that policy let in. Never throws: without it the next start is slower. */
  put(layer: Digest, bytes: Uint8Array): Promise<void>;
  /** Layers there is an index for. */
  list(): Promise<readonly Digest[]>;
  remove(layer: Digest): Promise<void>;
}

const KIND = 'index';
const NAME = /^([0-9a-f]{64}|[0-9a-f]{128})$/;

/** A folder of indexes; beyond `maxBytes` the ones that were not used for longest go. */
export function createLocalIndexes(
  components: { log: Logger },
  { directory, maxBytes }: { directory: string; maxBytes: number },
): LocalIndexes {
  const pathOf = (layer: Digest): string => join(directory, digestHex(layer));

  async function get(layer: Digest): Promise<Uint8Array | undefined> {
    const path = pathOf(layer);
    try {
      const bytes = await readSealed(path, KIND);
      if (bytes !== undefined) await utimes(path, new Date(), new Date());
      return bytes;
    } catch (error) {
      components.log.warn('a layer index cannot be read, removing it', {
        layer,
        why: withContext(error, {}).describe(),
      });
      if (hasCode(error, 'STATE_CORRUPT')) await rm(path, { force: true });
      return undefined;
    }
  }

  /** Keeps the newest that fit. */
  async function trim(): Promise<void> {
    const files = await Promise.all(
      (await readdir(directory)).map(async (name) => {
        const path = join(directory, name);
        const { size, mtimeMs } = await stat(path);
        return { path, size, mtimeMs };
      }),
    );
    let bytes = 0;
    for (const { path, size } of files.sort((a, b) => b.mtimeMs - a.mtimeMs)) {
      bytes += size;
      if (bytes > maxBytes) await rm(path, { force: true });
    }
  }

  return {
    get,
    async sizeOf(layer) {
      const found = await stat(pathOf(layer)).catch(() => undefined);
      return found === undefined ? undefined : Math.max(0, found.size - SEALED_HEADER_BYTES);
    },
    async put(layer, bytes) {
      try {
        await mkdir(directory, { recursive: true, mode: 0o700 });
        await writeSealed(pathOf(layer), KIND, bytes);
        await trim();
      } catch (error) {
        components.log.warn('a layer index cannot be kept', { layer, why: withContext(error, {}).describe() });
      }
    },
    async list() {
      const names = await readdir(directory).catch(() => []);
      return names.filter((name) => NAME.test(name)).map((name) => parseDigest(`sha${name.length * 4}:${name}`));
    },
    async remove(layer) {
      await rm(pathOf(layer), { force: true });
    },
  };
}

/**
 * An index somebody else sent, for a layer: throws INVALID_LAYER unless it is well-formed and about that layer. Whether to
 * believe its digests is policy.
 */
export function acceptedIndex(layer: Digest, bytes: Uint8Array): ReturnType<typeof decodeLayerIndex> {
  const index = decodeLayerIndex(bytes);
  if (index.layer !== layer)
    throw withContext(new Error(`the index is for ${index.layer}`), { layer }, 'INVALID_LAYER');
  return index;
}

/** Every chunk can be fetched by range: only then is an index of use to who does not have the layer. */
export function isRanged({ chunks }: Pick<LayerIndex, 'chunks'>): boolean {
  return chunks.columns.extents.every(({ codec }) => codec !== 'stream');
}
