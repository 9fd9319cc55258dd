import type { SourceStatus } from '../control/status.ts';
import type { MetricsRegistry } from '../metrics.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { LATENCY_BUCKETS_MS, type SourceCounters } from '../store/count.ts';
import type { FetchLedger } from '../store/ledger.ts';
import { FAULT_BUCKETS_MS, type FaultLoop } from '../trap/fault-loop.ts';
import type { KernelTrap } from '../trap/trap.ts';
import type { ImageRecords } from './images.ts';
import type { Prefetcher } from './prefetch.ts';
import { sourcesOf } from './source-status.ts';

const SECONDS = 1 / 1000;

interface MetricSources {
  readonly blobs: BlobStore;
  readonly trap: KernelTrap;
  readonly faults: FaultLoop;
  readonly sources: readonly SourceCounters[];
  readonly images: Pick<ImageRecords, 'list'>;
  readonly ledger: Pick<FetchLedger, 'tallies'>;
  readonly prefetcher: Pick<Prefetcher, 'stats'>;
  fetchedBytes(): number;
}

/** Registers what the parts of the daemon count by themselves; it is read when somebody scrapes. */
export function registerMetrics(metrics: MetricsRegistry, components: MetricSources): void {
  registerFaults(metrics, components);
  registerSources(metrics, components);
  registerImages(metrics, components);
  metrics.read({
    name: 'shoal_background_bytes_total',
    help: 'Uncompressed bytes fetched ahead of any reader.',
    type: 'counter',
    read: () => [{ value: components.prefetcher.stats().bytes }],
  });
  metrics.read({
    name: 'shoal_layers_bytes',
    help: 'Uncompressed bytes of the layers in use: all of them, and those on this node.',
    type: 'gauge',
    labels: ['kind'],
    read: () => {
      const devices = components.blobs.devices();
      return [
        { labels: ['total'], value: devices.reduce((sum, device) => sum + device.size, 0) },
        { labels: ['cached'], value: devices.reduce((sum, device) => sum + device.stats().presentBytes, 0) },
      ];
    },
  });
}

function registerFaults(metrics: MetricsRegistry, { trap, faults }: MetricSources): void {
  metrics.read({
    name: 'shoal_trap_reads_total',
    help: 'Reads that reached the trap: cold (data was missing), warm (it was there), denied (answered with an error).',
    type: 'counter',
    labels: ['kind'],
    read: () => {
      const { cold, warm, denied } = trap.stats();
      return Object.entries({ cold, warm, denied }).map(([kind, value]) => ({ labels: [kind], value }));
    },
  });
  metrics.readHistogram({
    name: 'shoal_fault_seconds',
    help: 'Time from a cold read to its answer; the upper bound of the bucket stands for each observation in the sum.',
    buckets: FAULT_BUCKETS_MS.map((ms) => ms * SECONDS),
    read: () => {
      const counts = faults.stats().latency;
      const sum = counts.reduce((total, count, index) => total + count * (FAULT_BUCKETS_MS[index] ?? 30_000), 0);
      return [{ counts, sum: sum * SECONDS }];
    },
  });
}

function registerSources(metrics: MetricsRegistry, { sources, fetchedBytes }: MetricSources): void {
  metrics.read({
    name: 'shoal_source_bytes_total',
    help: 'Uncompressed chunk bytes by the source that gave them.',
    type: 'counter',
    labels: ['source'],
    read: () => sources.map(({ name, bytes }) => ({ labels: [name], value: bytes })),
  });
  metrics.read({
    name: 'shoal_source_errors_total',
    help: 'Chunk reads that failed, by source and error code.',
    type: 'counter',
    labels: ['source', 'code'],
    read: () =>
      sources.flatMap(({ name, errors }) =>
        Object.entries(errors).map(([code, value]) => ({ labels: [name, code], value: value ?? 0 })),
      ),
  });
  metrics.read({
    name: 'shoal_source_requests_total',
    help: 'Chunk reads of a source, in whatever way they ended: served, missing (it has no such chunk), failed, aborted.',
    type: 'counter',
    labels: ['source', 'outcome'],
    read: () =>
      sources.flatMap(({ name, chunks, missing, aborted, errors }) => {
        const failed = Object.values(errors).reduce((sum, count) => sum + count, 0);
        const outcomes = Object.entries({ served: chunks, missing, aborted, failed });
        return outcomes.map(([outcome, value]) => ({ labels: [name, outcome], value }));
      }),
  });
  metrics.readHistogram({
    name: 'shoal_source_seconds',
    help: 'Time a source took to give a chunk.',
    labels: ['source'],
    buckets: LATENCY_BUCKETS_MS.map((ms) => ms * SECONDS),
    read: () =>
      sources.map(({ name, latency, latencySumMs }) => ({
        labels: [name],
        counts: latency,
        sum: latencySumMs * SECONDS,
      })),
  });
  metrics.read({
    name: 'shoal_fetched_bytes_total',
    help: 'Compressed layer bytes read from registries.',
    type: 'counter',
    read: () => [{ value: fetchedBytes() }],
  });
}

function registerImages(metrics: MetricsRegistry, { images, ledger }: MetricSources): void {
  const each = <T>(of: (source: SourceStatus, labels: string[]) => T): T[] =>
    images
      .list()
      .flatMap((image) =>
        Object.entries(sourcesOf(ledger, image)).map(([name, source]) => of(source, [image.reference, name])),
      );
  const counter = (name: string, help: string, of: (source: SourceStatus) => number): void =>
    metrics.read({
      name,
      help,
      type: 'counter',
      labels: ['image', 'source'],
      read: () => each((source, labels) => ({ labels, value: of(source) })),
    });
  counter('shoal_image_bytes_total', 'Uncompressed chunk bytes of an image by source.', ({ bytes }) => bytes);
  counter('shoal_image_requests_total', 'Chunk reads for an image by source.', ({ requests }) => requests);
  counter(
    'shoal_image_seconds_total',
    'Time in which a source gave the chunks of an image, one after the other.',
    ({ meanMs, chunks }) => meanMs * chunks * SECONDS,
  );
  metrics.read({
    name: 'shoal_image_errors_total',
    help: 'Chunk reads for an image that failed, by source and error code.',
    type: 'counter',
    labels: ['image', 'source', 'code'],
    read: () =>
      each(({ errors }, labels) =>
        Object.entries(errors).map(([code, value]) => ({ labels: [...labels, code], value })),
      ).flat(),
  });
}
