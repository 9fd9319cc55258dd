import type { SwarmTraffic } from '../control/status.ts';
import type { MetricsRegistry } from '../metrics.ts';
import type { DataPlaneStats } from '../source/peer/data/data-plane.ts';

/** What the swarm cost and brought, as `shoal status` shows it. */
export function trafficOf({ downloads, uploads, claims }: DataPlaneStats): SwarmTraffic {
  const { bytes, chunks, missing, busy, cut } = uploads;
  return {
    given: { bytes, chunks, missing, busy, cut },
    crossZone: { fromBytes: downloads.crossZoneBytes, toBytes: uploads.crossZoneBytes },
    corrupt: downloads.corrupt,
    hedges: downloads.hedges,
    claims,
  };
}

/** Registers the same as metrics. */
export function registerSwarmTraffic(metrics: MetricsRegistry, traffic: () => SwarmTraffic): void {
  const counter = (name: string, help: string, read: (now: SwarmTraffic) => number): void =>
    metrics.read({ name, help, type: 'counter', read: () => [{ value: read(traffic()) }] });
  const outcomes = (name: string, help: string, read: (now: SwarmTraffic) => Readonly<Record<string, number>>): void =>
    metrics.read({
      name,
      help,
      type: 'counter',
      labels: ['outcome'],
      read: () => Object.entries(read(traffic())).map(([outcome, value]) => ({ labels: [outcome], value })),
    });
  counter('shoal_swarm_given_bytes_total', 'Chunk bytes given to neighbours.', ({ given }) => given.bytes);
  outcomes(
    'shoal_swarm_answers_total',
    'Answers to neighbours that asked for a chunk: given, missing (not here), busy (too many ask), cut (too slow, or gone).',
    ({ given: { chunks, missing, busy, cut } }) => ({ given: chunks, missing, busy, cut }),
  );
  metrics.read({
    name: 'shoal_swarm_cross_zone_bytes_total',
    help: 'Chunk bytes that crossed a zone boundary, from and to neighbours.',
    type: 'counter',
    labels: ['direction'],
    read: () => {
      const { fromBytes, toBytes } = traffic().crossZone;
      return [
        { labels: ['from'], value: fromBytes },
        { labels: ['to'], value: toBytes },
      ];
    },
  });
  counter(
    'shoal_swarm_corrupt_total',
    'Answers of neighbours that were not what was asked for; each banned its sender for a while.',
    ({ corrupt }) => corrupt,
  );
  counter(
    'shoal_swarm_hedges_total',
    'Reads that asked a second neighbour because the first was slow.',
    ({ hedges }) => hedges,
  );
  outcomes(
    'shoal_swarm_claims_total',
    'What claims before going outside came to: granted, waited (served by whose claim it was), again (claimed anew), hedged and gave_up (fetched from outside although another node was fetching it).',
    ({ claims: { granted, waited, again, hedged, gaveUp } }) => ({ granted, waited, again, hedged, gave_up: gaveUp }),
  );
}
