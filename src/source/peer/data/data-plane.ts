import type { Clock } from '../../../clock.ts';
import { BLOCK_BYTES } from '../../../core/block-map.ts';
import type { ChunkRef } from '../../../core/chunk.ts';
import type { ChunkTable } from '../../../core/chunk-table.ts';
import type { Digest } from '../../../core/digest.ts';
import { claimUnit } from '../../../core/policy/claim-units.ts';
import { createHedging } from '../../../core/policy/hedging.ts';
import type { Logger } from '../../../log.ts';
import type { BlobStore } from '../../../store/blob-store.ts';
import type { ChunkStore } from '../../../store/chunk-store.ts';
import { count, type SourceCounters } from '../../../store/count.ts';
import { dedup } from '../../../store/dedup.ts';
import type { DocumentStore } from '../../../store/documents.ts';
import type { FetchLedger } from '../../../store/ledger.ts';
import type { LocalStore } from '../../../store/local-store.ts';
import { route, withoutDigest } from '../../../store/route.ts';
import { createSharingStore } from '../../../store/shared-chunks.ts';
import type { PeerDirectory } from '../directory.ts';
import { createChunkClient } from './chunk-client.ts';
import { type ChunkServer, type ChunkServerStats, createChunkServer } from './chunk-server.ts';
import { type ClaimedStore, type ClaimStats, claimed } from './claimed.ts';
import { createDocuments, type Documents } from './documents.ts';
import { hedged } from './hedged.ts';
import type { TlsIdentity } from './identity.ts';
import { indexKey, type SharedIndexes } from './index-request.ts';
import {
  createNeighbourStore,
  type NeighbourStore,
  type NeighbourStoreComponents,
  type SwarmDownloadStats,
} from './neighbour-store.ts';

/** Everything that moves chunks between this node and its neighbours, put together. */
export interface DataPlane {
  /** The whole cascade, what devices fill from: this node, neighbours, then outside under a claim. */
  readonly cascade: ChunkStore;
  readonly neighbours: NeighbourStore;
  /** What neighbours that announced an index of the layer send, one after the other: for who believes them. */
  indexes(layer: Digest, options: { signal: AbortSignal }): AsyncIterable<Uint8Array>;
  /** Manifests, configs and layer indexes; undefined without a place to keep them. */
  readonly documents: Documents | undefined;
  /** Listens; resolves with the port. Throws UNAVAILABLE. */
  start(): Promise<number>;
  stats(): DataPlaneStats;
  /** Stops serving and asking. Idempotent. */
  stop(): Promise<void>;
}

/** What went in, what went out, and what became of claims. */
export interface DataPlaneStats {
  readonly downloads: SwarmDownloadStats;
  readonly uploads: ChunkServerStats;
  readonly claims: ClaimStats;
}

/** What the data plane works with. */
export interface DataPlaneComponents {
  readonly directory: PeerDirectory;
  readonly identity: TlsIdentity;
  readonly blobs: BlobStore;
  /** Chunks of this node's own devices, by themselves. */
  readonly local: LocalStore;
  /** The same as a step of the cascade: counted, say. */
  readonly own?: ChunkStore;
  /** Mirrors and origin, counted by their names. */
  readonly outside: ChunkStore;
  /** Counts chunks from neighbours. */
  readonly counters: SourceCounters;
  /** Remembers what came from whom. */
  readonly ledger?: FetchLedger;
  /** Indexes of layers for neighbours. */
  readonly indexes?: SharedIndexes;
  /** Whether chunks of this layer may be given to others (S13). */
  readonly shareable: (blob: Digest) => boolean;
  /** Documents of images, and of which images they must stay here. */
  readonly documents?: { readonly store: DocumentStore; readonly isPrivate: (image: string) => boolean };
  readonly clock: Clock;
  readonly log: Logger;
}

/** Longest a node works on the rest of an extent, ms. */
const COMPLETE_MS = 120_000;

/** Neighbours asked for one index: who has none after all, or is too busy, costs a round trip. */
const INDEX_HOLDERS_MAX = 3;

function pick(indexes: SharedIndexes | undefined): { indexes?: SharedIndexes } {
  return indexes === undefined ? {} : { indexes };
}

/**
 * Where the server listens, and how much it gives: `uploadBytesPerSecond` 0 is without limit. `deadlineMs`: what a cold read
 * may take.
 */
export function createDataPlane(
  components: DataPlaneComponents,
  init: { host: string; port: number; uploadBytesPerSecond?: number; uploadSlots?: number; deadlineMs?: number },
): DataPlane {
  const { directory, identity, blobs, local, outside, counters, ledger, shareable, clock, log } = components;
  const table = (blob: Digest): ChunkTable | undefined => blobs.opened(blob)?.table;
  const hedging = createHedging({ sharers: () => directory.peers().length + 1 });
  const client = createChunkClient({ identity });
  const answered: NeighbourStoreComponents['answered'] = ({ id }, digest, answer) =>
    ledger?.answered(digest, { source: counters.name, peer: id, ...answer });
  const neighbours = createNeighbourStore({ directory, client, table, hedging, clock, log, answered });
  const watched = (inner: ChunkStore): ChunkStore => ledger?.watch(inner) ?? inner;
  const counted = (inner: ChunkStore): ChunkStore => {
    const counting = count({ clock, inner }, counters);
    return ledger === undefined ? counting : ledger.source(counters.name, counting);
  };
  const claims: ClaimedStore = claimed({
    ...{ outside, directory, table, hedging, clock },
    ask: (holders, options) => counted(neighbours.asking(holders, options)),
    complete: (blob, first, end) => completeRows(blobs, blob, first, end),
    known: (ref) => neighbours.known(ref),
    ...(init.deadlineMs === undefined ? {} : { deadlineMs: init.deadlineMs }),
  });
  const chunksWith = ({ blob, index }: ChunkRef): number => {
    const rows = table(blob);
    if (rows === undefined || !(index < rows.count)) return 1;
    const { first, end } = claimUnit(rows, index);
    return end - first;
  };
  const swarm = hedged({ neighbours: counted(neighbours), outside, hedging, clock, chunksWith });
  const all = withoutDigest(outside, route(components.own ?? local, swarm, claims));
  const inner = dedup(watched(all));
  const cascade = createSharingStore({ inner, local, blobs, shareable });
  const documents =
    components.documents === undefined
      ? undefined
      : createDocuments({ ...components.documents, ...{ directory, client, counted, watched, answered, clock, log } });
  const chunks = documents?.serving(cascade.shared) ?? cascade.shared;
  const server: ChunkServer = createChunkServer(
    { directory, chunks, identity, clock, log, ...pick(components.indexes) },
    {
      ...{ host: init.host, port: init.port, bytesPerSecond: init.uploadBytesPerSecond ?? 0 },
      ...(init.uploadSlots === undefined ? {} : { slots: init.uploadSlots }),
    },
  );
  return {
    cascade,
    neighbours,
    async *indexes(layer, { signal }) {
      let asked = 0;
      for await (const neighbour of directory.find(indexKey(layer), { signal })) {
        if (asked === INDEX_HOLDERS_MAX) return;
        asked += 1;
        const index = await client.index(neighbour, layer, { signal }).catch((error) => {
          signal.throwIfAborted();
          log.debug('a neighbour gives no index', { peer: neighbour.id, layer, error: String(error) });
        });
        if (index !== undefined) yield index;
      }
    },
    documents,
    start: () => server.start(),
    stats() {
      const downloads = neighbours.stats();
      const corrupt = downloads.corrupt + (documents?.corrupt ?? 0);
      return { downloads: { ...downloads, corrupt }, uploads: server.stats(), claims: claims.stats() };
    },
    async stop() {
      await server.stop();
      await cascade.close();
      await client.close();
    },
  };
}

/** At low priority: nobody waits here, but others are told to get these rows from this node. */
function completeRows(blobs: BlobStore, blob: Digest, first: number, end: number): void {
  const device = blobs.opened(blob);
  if (device === undefined) return;
  const offset = device.table.row(first).deviceOffset;
  const length = device.table.blocksOf(end - 1).end * BLOCK_BYTES - offset;
  // Whoever needs a row asks for it again and gets the error.
  device.fill(offset, length, { signal: AbortSignal.timeout(COMPLETE_MS), urgency: 'prefetch' }).catch(() => {});
}
