import { randomBytes } from 'node:crypto';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/core/digest.ts';
import { createHedging } from '../../../../src/core/policy/hedging.ts';
import type { Logger } from '../../../../src/log.ts';
import { type ChunkClient, createChunkClient } from '../../../../src/source/peer/data/chunk-client.ts';
import {
  type ChunkServer,
  type ChunkServerInit,
  createChunkServer,
} from '../../../../src/source/peer/data/chunk-server.ts';
import { type ClaimedStore, claimed } from '../../../../src/source/peer/data/claimed.ts';
import { hedged } from '../../../../src/source/peer/data/hedged.ts';
import { createHeldChunks } from '../../../../src/source/peer/data/held-chunks.ts';
import { makeTlsIdentity, type TlsIdentity } from '../../../../src/source/peer/data/identity.ts';
import { createNeighbourStore, type NeighbourStore } from '../../../../src/source/peer/data/neighbour-store.ts';
import type { Neighbour } from '../../../../src/source/peer/directory.ts';
import {
  createMemoryDirectory,
  type MemoryDirectory,
  type MemoryHub,
} from '../../../../src/source/peer/memory-directory.ts';
import type { BlobDevice } from '../../../../src/store/blob-device.ts';
import type { BlobStore } from '../../../../src/store/blob-store.ts';
import type { ChunkStore } from '../../../../src/store/chunk-store.ts';
import { count, type SourceCounters, sourceCounters } from '../../../../src/store/count.ts';
import { dedup } from '../../../../src/store/dedup.ts';
import { createLocalStore } from '../../../../src/store/local-store.ts';
import { createMemoryStore } from '../../../../src/store/memory-store.ts';
import { route } from '../../../../src/store/route.ts';
import { createSharingStore, type SharedChunks } from '../../../../src/store/shared-chunks.ts';
import type { TestBlob } from '../../../store/blob-fixture.ts';
import { contentOf, openStore, RecordingLogger, stateRoot } from '../../../store/store-fixture.ts';

/** A whole node but for its trap: blob store, cascade, chunk server and client, in this process. */
export interface Member extends AsyncDisposable {
  readonly self: Neighbour;
  readonly identity: TlsIdentity;
  readonly directory: MemoryDirectory;
  readonly blobs: BlobStore;
  readonly server: ChunkServer;
  readonly client: ChunkClient;
  readonly shared: SharedChunks;
  readonly neighbours: NeighbourStore;
  readonly claims: ClaimedStore;
  readonly counters: { readonly neighbour: SourceCounters; readonly outside: SourceCounters };
  readonly log: RecordingLogger;
  /** Makes the blob's device; nothing of it is here. */
  open(blob: TestBlob): Promise<BlobDevice>;
  /** Makes it and fetches all of it. */
  fill(blob: TestBlob): Promise<BlobDevice>;
  /** Takes the node out of the swarm, its server first. */
  leave(): Promise<void>;
}

/** What a test may want otherwise. */
export interface MemberInit {
  readonly outside?: ChunkStore;
  /** In place of a fresh outside per member, one made when the blob store is there. */
  readonly outsideOf?: (blobs: BlobStore) => ChunkStore;
  readonly zone?: string;
  readonly server?: Partial<ChunkServerInit>;
  readonly shareable?: (blob: Digest) => boolean;
  readonly log?: Logger;
  readonly store?: Parameters<typeof openStore>[1];
}

/** Starts a member of the hub's swarm. */
export async function startMember(hub: MemoryHub, init: MemberInit = {}): Promise<Member> {
  const stack = new AsyncDisposableStack();
  const root = stack.use(await stateRoot());
  const log = new RecordingLogger();
  const clock = systemClock;
  const blobs = stack.use(await openStore(root.path, { flushAfterMs: 50, ...init.store }, log));
  const identity = makeTlsIdentity();
  const shareable = init.shareable ?? (() => true);
  const held = createHeldChunks({ blobs, shareable });
  const local = createLocalStore({ blobs });
  const counters = { neighbour: sourceCounters('neighbour'), outside: sourceCounters('origin') };
  const self = {
    id: randomBytes(8).toString('hex'),
    address: '127.0.0.1',
    dataPort: 0,
    fingerprint: identity.fingerprint,
    zone: init.zone ?? '',
  };
  const directory = createMemoryDirectory({ hub, held }, { self });
  const client = createChunkClient({ identity });
  stack.defer(() => client.close());
  const hedging = createHedging({ sharers: () => directory.peers().length + 1 });
  const table = (blob: Digest) => blobs.opened(blob)?.table;
  const neighbours = createNeighbourStore({ directory, client, table, hedging, clock, log });
  const outside = count(
    { clock, inner: init.outsideOf?.(blobs) ?? init.outside ?? createMemoryStore() },
    counters.outside,
  );
  const fromNeighbours = count({ clock, inner: neighbours }, counters.neighbour);
  const claims = claimed({
    outside,
    directory,
    table,
    hedging,
    clock,
    ask: (holders, options) => count({ clock, inner: neighbours.asking(holders, options) }, counters.neighbour),
    complete(blob, first, end) {
      const device = blobs.opened(blob);
      if (device === undefined) return;
      const { deviceOffset } = device.table.row(first);
      const length = device.table.blocksOf(end - 1).end * 4096 - deviceOffset;
      device.fill(deviceOffset, length, { signal: AbortSignal.timeout(30_000), urgency: 'prefetch' }).catch(() => {});
    },
  });
  stack.defer(() => claims.close());
  const swarm = hedged({ neighbours: fromNeighbours, outside, hedging, clock });
  const cascade = createSharingStore({ inner: dedup(route(local, swarm, claims)), local, blobs, shareable });
  blobs.connect(cascade);
  const server = createChunkServer(
    { directory, chunks: cascade.shared, identity, clock, log },
    { host: '127.0.0.1', port: 0, ...init.server },
  );
  stack.use(server);
  self.dataPort = await server.start();
  stack.defer(() => directory.close());
  const open = (blob: TestBlob): Promise<BlobDevice> => blobs.create(blob.digest, contentOf(blob));
  return {
    self,
    identity,
    directory,
    blobs,
    server,
    client,
    shared: cascade.shared,
    neighbours,
    claims,
    counters,
    log,
    open,
    async fill(blob) {
      const device = await open(blob);
      await device.fill(0, device.size, { signal: AbortSignal.timeout(60_000) });
      return device;
    },
    async leave() {
      directory.close();
      await server.stop();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
