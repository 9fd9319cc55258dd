import type { ImageStatus, LayerStatus, StatusReport, StatusSource, SwarmTraffic } from '../control/status.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { SourceCounters } from '../store/count.ts';
import type { FetchLedger } from '../store/ledger.ts';
import type { KernelTrap } from '../trap/trap.ts';
import { VERSION } from '../version.ts';
import type { ImageRecord, ImageRecords, LayerOutcome } from './images.ts';
import type { ManualMounts } from './manual-mounts.ts';
import type { Prefetcher } from './prefetch.ts';
import type { LazyRuns } from './runs.ts';
import { sourcesOf, totalStatus } from './source-status.ts';

interface StatusComponents {
  readonly blobs: BlobStore;
  readonly runs: LazyRuns;
  readonly images: ImageRecords;
  readonly mounts: ManualMounts;
  readonly trap: KernelTrap;
  readonly sources: readonly SourceCounters[];
  readonly ledger: Pick<FetchLedger, 'tallies'>;
  readonly prefetcher: Pick<Prefetcher, 'stats'>;
  fetchedBytes(): number;
  /** Undefined when the swarm is off. */
  readonly traffic?: (() => SwarmTraffic) | undefined;
}

/** Gathers what `shoal status` shows. */
export function createStatusSource(components: StatusComponents, init: { root: string; reason: string }): StatusSource {
  const { images, mounts, trap, sources, traffic } = components;
  const startedAt = new Date().toISOString();
  return {
    async status(): Promise<StatusReport> {
      const { cold, warm, denied } = trap.stats();
      return {
        daemon: {
          version: VERSION,
          pid: process.pid,
          startedAt,
          root: init.root,
          trap: { kind: trap.kind, reason: init.reason },
          rssBytes: process.memoryUsage.rss(),
        },
        images: await Promise.all(images.list().map((image) => imageStatus(components, image))),
        faults: { cold, warm, denied },
        bytesBySource: Object.fromEntries(sources.map(({ name, bytes }) => [name, bytes])),
        sources: Object.fromEntries(sources.map((each) => [each.name, totalStatus(each)])),
        background: components.prefetcher.stats(),
        fetchedBytes: components.fetchedBytes(),
        mounts: (await mounts.list()).map(({ reference, directory, manifestDigest }) => ({
          reference,
          directory,
          manifestDigest,
        })),
        ...(traffic === undefined ? {} : { swarm: traffic() }),
      };
    },
  };
}

async function imageStatus(components: StatusComponents, image: ImageRecord): Promise<ImageStatus> {
  const layers = await Promise.all(image.layers.map((layer) => layerStatus(components, layer)));
  const bytesBySource: Record<string, number> = {};
  for (const { digest } of image.layers) {
    for (const [name, bytes] of Object.entries(components.blobs.opened(digest)?.stats().bytesBySource ?? {})) {
      bytesBySource[name] = (bytesBySource[name] ?? 0) + bytes;
    }
  }
  const reason = image.layers.find((layer) => layer.reason !== undefined)?.reason;
  return {
    reference: image.reference,
    ...(image.manifestDigest === undefined ? {} : { manifestDigest: image.manifestDigest }),
    layers,
    bytesBySource,
    sources: sourcesOf(components.ledger, image),
    ...(reason === undefined ? {} : { error: reason }),
  };
}

async function layerStatus({ blobs, runs }: StatusComponents, layer: LayerOutcome): Promise<LayerStatus> {
  const device = layer.lazy ? await blobs.open(layer.digest) : undefined;
  return {
    digest: layer.digest,
    format: device?.info.format ?? 'unpacked',
    ...(device?.info.why === undefined ? {} : { why: device.info.why }),
    bytesCompressed: device?.info.size ?? 0,
    bytesTotal: device?.size ?? 0,
    bytesCached: device?.stats().presentBytes ?? 0,
    complete: device?.complete ?? true,
    mounts: runs.mountsOf(layer.digest),
  };
}
