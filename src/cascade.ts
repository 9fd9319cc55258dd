/** The cascade's part of the composition root: where a chunk comes from, and what is counted on the way. */
import type { Clock } from './clock.ts';
import type { Config } from './config.ts';
import { joinSwarm } from './join-swarm.ts';
import { NEIGHBOUR } from './lazy/fetch-story.ts';
import { createGivenCredentials } from './lazy/given-credentials.ts';
import type { ImageRecords } from './lazy/images.ts';
import type { LocalIndexes } from './lazy/local-indexes.ts';
import { type ConfiguredMirrors, createConfiguredMirrors } from './lazy/mirrors.ts';
import type { Neighbourhood } from './lazy/neighbourhood.ts';
import { createNeighbourlyRegistry } from './lazy/neighbourly-registry.ts';
import { createOriginBlobs } from './lazy/origin-blobs.ts';
import { createConfiguredRegistry } from './lazy/registry.ts';
import type { Logger } from './log.ts';
import { type AskedRegistries, createAskedRegistries } from './source/asked-registries.ts';
import { createMirroredRegistry } from './source/mirror/mirrored-registry.ts';
import { createMirroredStore } from './source/mirror/mirrored-store.ts';
import { createOriginStore } from './source/origin/origin-store.ts';
import type { RegistryClient } from './source/origin/registry-client.ts';
import type { Swarm } from './source/peer/swarm.ts';
import type { BlobStore } from './store/blob-store.ts';
import type { ChunkStore } from './store/chunk-store.ts';
import { count, type SourceCounters, sourceCounters } from './store/count.ts';
import { dedup } from './store/dedup.ts';
import { createFetchLedger, type FetchLedger } from './store/ledger.ts';
import { createLocalStore } from './store/local-store.ts';
import { route } from './store/route.ts';

/** Every way to a chunk. */
export interface Cascade {
  /** What devices fill from. */
  readonly source: ChunkStore;
  /** Manifests and indexes: from neighbours, then through mirrors where there are any. */
  readonly registry: RegistryClient;
  /** The registries themselves. */
  readonly direct: RegistryClient;
  readonly given: ReturnType<typeof createGivenCredentials>;
  readonly asked: AskedRegistries;
  readonly mirrors: ConfiguredMirrors;
  readonly swarm: Neighbourhood<Swarm> | undefined;
  /** What each source did, in the order they are asked. */
  readonly sources: readonly SourceCounters[];
  readonly ledger: FetchLedger;
  /** Compressed bytes that came from mirrors and registries. */
  fetchedBytes(): number;
  /** Tells of bytes that came past the cascade, for a layer that was read whole. */
  onFetched(bytes: number): void;
}

/**
 * Makes the cascade: this node, then neighbours, then the mirrors of the image's registry, then the registry itself.
 * What must be closed goes on `stack`. Throws CONFIG_INVALID, and UNAVAILABLE when the swarm's ports are taken.
 */
export async function openCascade(
  config: Config,
  components: { log: Logger; clock: Clock; blobs: BlobStore; images: ImageRecords; indexes: LocalIndexes },
  stack: AsyncDisposableStack,
): Promise<Cascade> {
  const { log, clock, blobs } = components;
  const parts = { log, clock };
  const given = createGivenCredentials((repository) => direct.renewed(repository));
  const asked = createAskedRegistries();
  const direct = createConfiguredRegistry(config, { ...parts, given: given.sources, asked });
  stack.defer(() => direct.close());
  const [local, neighbour] = [sourceCounters('local'), sourceCounters(NEIGHBOUR)];
  const [mirror, origin] = [sourceCounters('mirror'), sourceCounters('origin')];
  const mirrors = createConfiguredMirrors(config, { ...parts, blobs, direct, counters: mirror });
  stack.defer(() => mirrors.chains.close());
  const mirrored = createMirroredRegistry({ ...parts, origin: direct, chains: mirrors.chains });

  const ledger = createFetchLedger(parts);
  const counted = (inner: ChunkStore, counters: SourceCounters): ChunkStore =>
    ledger.source(counters.name, count({ clock, inner }, counters));
  let originBytes = 0;
  const onFetched = (bytes: number): void => {
    originBytes += bytes;
  };
  const originStore = createOriginStore(
    {
      blobs: createOriginBlobs({ blobs, registry: direct, asked }),
      onFetched: (_blob, bytes) => onFetched(bytes),
      onExtent: async ({ blob, index }, decoded) => await blobs.opened(blob)?.offerExtent(index, decoded, origin.name),
    },
    { demandRequestBytes: config.fetch.requestBytesMax },
  );
  const held = createLocalStore({ blobs });
  const own = counted(held, local);
  const outside = createMirroredStore({
    ...parts,
    ...mirrors,
    counted: (inner) => counted(inner, mirror),
    origin: counted(originStore, origin),
  });
  const swarm = await joinSwarm(config, { ...components, ledger, local: held, own, outside, counters: neighbour });
  if (swarm !== undefined) stack.defer(() => swarm.stop());
  const documents = swarm?.plane.documents;
  const registry = documents === undefined ? mirrored : createNeighbourlyRegistry({ registry: mirrored, documents });
  return {
    source: swarm?.plane.cascade ?? dedup(ledger.watch(route(own, outside))),
    ...{ registry, direct, given, asked, mirrors, swarm, ledger },
    sources: swarm === undefined ? [local, mirror, origin] : [local, neighbour, mirror, origin],
    fetchedBytes: () => originBytes + mirrors.fetchedBytes(),
    onFetched,
  };
}
