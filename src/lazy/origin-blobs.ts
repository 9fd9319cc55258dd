import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { RangedBlob } from '../image/layer-reader.ts';
import type { AskedRegistries } from '../source/asked-registries.ts';
import type { OriginBlobs } from '../source/origin/origin-store.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { windowsOf } from './layer-windows.ts';

/** The origin's view of the blob store: tables, and each blob by range from whichever repository has it. */
export function createOriginBlobs(components: {
  blobs: BlobStore;
  registry: RegistryClient;
  asked?: AskedRegistries;
}): OriginBlobs {
  const { blobs, registry, asked } = components;

  /** Tries the repositories the blob is known from, newest first; the last error is the one that counts. */
  function ranged(blob: Digest): RangedBlob | undefined {
    const device = blobs.opened(blob);
    if (device === undefined) return undefined;
    return {
      digest: blob,
      size: device.info.size,
      async read(offset, length, options) {
        const { signal } = options;
        let last: unknown = new ShoalError('CHUNK_MISSING', `no registry is known for ${blob}`, { layer: blob });
        for (const source of device.info.sources.toReversed()) {
          // Recorded when somebody asked for it, maybe before this daemon was started.
          asked?.admit(source.registry);
          try {
            const { remote: digest = blob, size } = device.info;
            const remote = await registry.blob(source, { digest, size }, { signal });
            return await remote.read(offset, length, options);
          } catch (error) {
            if (signal.aborted) throw error;
            last = error;
          }
        }
        throw last;
      },
    };
  }

  return {
    table: (blob) => blobs.opened(blob)?.table,
    ranged,
    window: windowsOf(blobs),
  };
}
