import { join } from 'node:path';
import type { Config } from '../config.ts';
import { createPassThreads } from '../image/pass/pass-threads.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { createDiffIds } from './diff-ids.ts';
import { createLocalIndexes } from './local-indexes.ts';
import type { ManifestLookup } from './manifests.ts';
import { createPlainLayers, type PlainLayers } from './plain-layers.ts';
import { createRegistryIndexes } from './registry-indexes.ts';
import { createSociLayers, type SociLayers } from './soci-layers.ts';

/** The reader of plain layers a configuration asks for; undefined when containerd is to unpack them. */
export function createConfiguredPlainLayers(
  config: Pick<Config, 'root' | 'layers' | 'limits'>,
  components: {
    blobs: BlobStore;
    registry: RegistryClient;
    manifests: ManifestLookup;
    log: Logger;
    onFetched: (bytes: number) => void;
  },
  stack: AsyncDisposableStack,
): PlainLayers | undefined {
  const { plain, indexBytesMax, indexTrust, wholeBytesMax } = config.layers;
  if (!plain) return undefined;
  const { registry, log } = components;
  const threads = createPassThreads();
  stack.defer(() => threads.close());
  return createPlainLayers(
    {
      ...components,
      threads,
      diffIds: createDiffIds({ ...components, client: registry }),
      indexes: createLocalIndexes({ log }, { directory: join(config.root, 'indexes'), maxBytes: indexBytesMax }),
      others: indexTrust === 'registry' ? [createRegistryIndexes({ client: registry })] : [],
    },
    { wholeBytesMax, maxEntries: config.limits.layerEntriesMax },
  );
}

/** The reader of SOCI indexes a configuration asks for; undefined when they are not to be used. */
export function createConfiguredSociLayers(
  config: Pick<Config, 'layers' | 'limits'>,
  components: { blobs: BlobStore; registry: RegistryClient; manifests: ManifestLookup; log: Logger },
): SociLayers | undefined {
  const { soci, indexTrust, wholeBytesMax } = config.layers;
  if (!soci) return undefined;
  return createSociLayers(
    { ...components, client: components.registry },
    { trustReferrers: indexTrust === 'registry', wholeBytesMax, maxEntries: config.limits.layerEntriesMax },
  );
}
