import type { Config } from '../config.ts';
import type { Digest } from '../core/digest.ts';
import { createPassThreads } from '../image/pass/pass-threads.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { DataPlane } from '../source/peer/data/data-plane.ts';
import type { Documents } from '../source/peer/data/documents.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { createDiffIds } from './diff-ids.ts';
import type { LocalIndexes } from './local-indexes.ts';
import type { ManifestLookup } from './manifests.ts';
import { createNeighbourIndexes } from './neighbour-indexes.ts';
import { createPlainLayers, type IndexSource, type PlainLayers } from './plain-layers.ts';
import { createRegistryIndexes } from './registry-indexes.ts';
import { createSociLayers, type SociLayers } from './soci-layers.ts';

/** The reader of plain layers a configuration asks for; undefined when containerd is to unpack them. */
export function createConfiguredPlainLayers(
  config: Pick<Config, 'layers' | 'limits'>,
  components: {
    blobs: BlobStore;
    indexes: LocalIndexes;
    /** Absent without a swarm. */
    plane?: DataPlane | undefined;
    onIndexed?: (layer: Digest) => void;
    registry: RegistryClient;
    manifests: ManifestLookup;
    log: Logger;
    onFetched: (bytes: number) => void;
  },
  stack: AsyncDisposableStack,
): PlainLayers | undefined {
  const { plain, wholeBytesMax } = config.layers;
  if (!plain) return undefined;
  const { registry } = components;
  const threads = createPassThreads();
  stack.defer(() => threads.close());
  return createPlainLayers(
    {
      ...components,
      threads,
      diffIds: createDiffIds({ ...components, client: registry }),
      others: believedSources(config, components),
    },
    { wholeBytesMax, maxEntries: config.limits.layerEntriesMax },
  );
}

/** Who else may say what is in a layer, the nearest first. */
function believedSources(
  { layers: { indexTrust, neighbourIndexes } }: Pick<Config, 'layers'>,
  { plane, registry, log }: { plane?: DataPlane | undefined; registry: RegistryClient; log: Logger },
): IndexSource[] {
  return [
    ...(neighbourIndexes && plane !== undefined ? [createNeighbourIndexes({ plane, log })] : []),
    ...(indexTrust === 'registry' ? [createRegistryIndexes({ client: registry })] : []),
  ];
}

/** The reader of SOCI indexes a configuration asks for; undefined when they are not to be used. */
export function createConfiguredSociLayers(
  config: Pick<Config, 'layers' | 'limits'>,
  components: {
    blobs: BlobStore;
    registry: RegistryClient;
    manifests: ManifestLookup;
    documents?: Documents | undefined;
    log: Logger;
  },
): SociLayers | undefined {
  const { soci, indexTrust, wholeBytesMax } = config.layers;
  if (!soci) return undefined;
  return createSociLayers(
    { ...components, client: components.registry },
    { trustReferrers: indexTrust === 'registry', wholeBytesMax, maxEntries: config.limits.layerEntriesMax },
  );
}
