import { ShoalError, withContext } from '../../errors.ts';
import type {
  LayerContent,
  LayerDescriptor,
  LayerIndexBytes,
  LayerReader,
  OpenBlob,
  RangedBlob,
} from '../layer-reader.ts';
import { createEstargzReader, type EstargzLimits } from './estargz.ts';
import { createRafsReader } from './rafs/rafs.ts';
import { cacheTail } from './tail-cache.ts';
import { createZstdchunkedReader } from './zstdchunked.ts';

/** A reader of every format shoal knows, in the order they are asked. */
export function createLayerReaders(init: { estargz?: Partial<EstargzLimits> } = {}): readonly LayerReader[] {
  const limits = init.estargz === undefined ? {} : { limits: init.estargz };
  const { maxTocBytes, maxEntries } = init.estargz ?? {};
  const rafsLimits = {
    limits: {
      ...(maxTocBytes === undefined ? {} : { maxLayerBytes: maxTocBytes }),
      ...(maxEntries === undefined ? {} : { maxEntries }),
    },
  };
  return [createRafsReader(rafsLimits), createEstargzReader(limits), createZstdchunkedReader(limits)];
}

/**
 * Reads a layer's tree and chunk table with the first reader that knows its format. Throws UNSUPPORTED_LAYER when none
 * does, INVALID_LAYER when the blob is not as long as its descriptor says, and what that reader throws; always with the
 * layer in the error's context. Rejects with the signal's reason when aborted.
 */
export async function readLayer(
  layer: LayerDescriptor,
  blob: RangedBlob,
  {
    signal,
    readers = createLayerReaders(),
    openBlob,
    index,
    tailBytes,
  }: {
    signal: AbortSignal;
    readers?: readonly LayerReader[];
    openBlob?: OpenBlob;
    index?: LayerIndexBytes;
    /** How much of the blob's end is read at once. */
    tailBytes?: number;
  },
): Promise<{ format: string; content: LayerContent }> {
  try {
    if (layer.size !== undefined && layer.size !== blob.size) {
      throw new ShoalError('INVALID_LAYER', `the blob has ${blob.size} bytes, its descriptor says ${layer.size}`);
    }
    const cached = cacheTail(blob, tailBytes);
    const options = {
      signal,
      ...(openBlob === undefined ? {} : { openBlob }),
      ...(index === undefined ? {} : { index }),
    };
    for (const reader of readers) {
      if (!(await reader.probe(layer, cached, { signal }))) continue;
      return { format: reader.format, content: await reader.read(layer, cached, options) };
    }
    throw new ShoalError('UNSUPPORTED_LAYER', 'no reader knows this layer format');
  } catch (error) {
    signal.throwIfAborted();
    throw withContext(error, { layer: layer.digest });
  }
}
