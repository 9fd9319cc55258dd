import { join } from 'node:path';
import type { Config } from '../config.ts';
import { createPassThreads } from '../image/pass/pass-threads.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { createLocalIndexes } from './local-indexes.ts';
import { createPlainLayers, type PlainLayers } from './plain-layers.ts';
import { createRegistryIndexes } from './registry-indexes.ts';

/** The reader of plain layers a configuration asks for; undefined when containerd is to unpack them. */
export function createConfiguredPlainLayers(
  config: Pick<Config, 'root' | 'layers' | 'limits'>,
  components: { blobs: BlobStore; registry: RegistryClient; log: Logger; onFetched: (bytes: number) => void },
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
      indexes: createLocalIndexes({ log }, { directory: join(config.root, 'indexes'), maxBytes: indexBytesMax }),
      others: indexTrust === 'registry' ? [createRegistryIndexes({ client: registry })] : [],
    },
    { wholeBytesMax, maxEntries: config.limits.layerEntriesMax },
  );
}
