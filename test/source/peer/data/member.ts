import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/core/digest.ts';
import { type ChunkClient, createChunkClient } from '../../../../src/source/peer/data/chunk-client.ts';
import { createDataPlane, type DataPlane } from '../../../../src/source/peer/data/data-plane.ts';

import { createHeldChunks } from '../../../../src/source/peer/data/held-chunks.ts';
import { makeTlsIdentity, type TlsIdentity } from '../../../../src/source/peer/data/identity.ts';
import type { SharedIndexes } from '../../../../src/source/peer/data/index-request.ts';
import type { NeighbourStore } from '../../../../src/source/peer/data/neighbour-store.ts';
import type { HeldChunks, Neighbour, PeerDirectory } from '../../../../src/source/peer/directory.ts';
import { createMemoryDirectory, type MemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import type { BlobDevice } from '../../../../src/store/blob-device.ts';
import { type BlobStore, openBlobStore } from '../../../../src/store/blob-store.ts';
import type { ChunkStore } from '../../../../src/store/chunk-store.ts';
import { count, type SourceCounters, sourceCounters } from '../../../../src/store/count.ts';
import { type DocumentStore, openDocuments } from '../../../../src/store/documents.ts';
import { createLocalStore } from '../../../../src/store/local-store.ts';
import { createMemoryStore } from '../../../../src/store/memory-store.ts';
import { MemoryIndexDb, type TestBlob } from '../../../store/blob-fixture.ts';
import { contentOf, RecordingLogger, stateRoot } from '../../../store/store-fixture.ts';

/** A whole node but for its trap: blob store, cascade, chunk server and client, in this process. */
export interface Member extends AsyncDisposable {
  readonly self: Neighbour;
  readonly identity: TlsIdentity;
  readonly directory: PeerDirectory;
  readonly blobs: BlobStore;
  readonly plane: DataPlane;
  readonly documents: { readonly store: DocumentStore };
  /** Asks as this member, without its cascade. */
  readonly client: ChunkClient;
  readonly neighbours: NeighbourStore;
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
  /** Reading ahead of sequential reads; on unless false. */
  readonly readahead?: boolean;
  /** Joins another swarm than the hub's. */
  readonly join?: Join;
  readonly plane?: { uploadBytesPerSecond?: number; uploadSlots?: number };
  readonly shareable?: (blob: Digest) => boolean;
  readonly indexes?: SharedIndexes;
  /** Images whose documents stay here. */
  readonly isPrivate?: (image: string) => boolean;
}

/** How a member gets into a swarm that is not the hub's. */
export type Join = (about: { held: HeldChunks; identity: TlsIdentity }) => Promise<Joined>;

/** A place in a swarm. */
export interface Joined {
  readonly directory: PeerDirectory;
  readonly self: Neighbour & { dataPort: number };
  readonly leave: () => Promise<void>;
}

function joinHub(
  hub: MemoryHub,
  { held, identity, zone = '' }: { held: HeldChunks; identity: TlsIdentity; zone: string | undefined },
): Joined {
  const { fingerprint } = identity;
  const self = { id: randomBytes(8).toString('hex'), address: '127.0.0.1', dataPort: 0, fingerprint, zone };
  const directory = createMemoryDirectory({ hub, held }, { self });
  return { directory, self, leave: async () => directory.close() };
}

/** Starts a member of the hub's swarm. */
export async function startMember(hub: MemoryHub, init: MemberInit = {}): Promise<Member> {
  const stack = new AsyncDisposableStack();
  const root = stack.use(await stateRoot());
  const log = new RecordingLogger();
  const clock = systemClock;
  const blobs = stack.use(
    await openBlobStore(
      {
        log,
        clock,
        onHeld: (_, digests) => directory.announce(digests),
        onGone: (_, gone) => directory.withdraw(gone),
      },
      { root: root.path, db: new MemoryIndexDb(), flushAfterMs: 50, readahead: init.readahead ?? true },
    ),
  );
  const identity = makeTlsIdentity();
  const shareable = init.shareable ?? (() => true);
  const indexes = init.indexes === undefined ? {} : { indexes: init.indexes };
  const documents = {
    store: await openDocuments(
      { log, onGone: (gone) => directory.withdraw(gone) },
      { directory: join(root.path, 'documents'), maxBytes: 64 * 1024 * 1024 },
    ),
    isPrivate: init.isPrivate ?? (() => false),
  };
  const held = createHeldChunks({ blobs, shareable, documents, ...indexes });
  const local = createLocalStore({ blobs });
  const counters = { neighbour: sourceCounters('neighbour'), outside: sourceCounters('origin') };
  const { directory, self, leave } =
    init.join === undefined ? joinHub(hub, { held, identity, zone: init.zone }) : await init.join({ held, identity });
  stack.defer(leave);
  const client = createChunkClient({ identity });
  stack.defer(() => client.close());
  const outside = count(
    { clock, inner: init.outsideOf?.(blobs) ?? init.outside ?? createMemoryStore() },
    counters.outside,
  );
  const plane = createDataPlane(
    {
      directory,
      identity,
      blobs,
      local,
      outside,
      counters: counters.neighbour,
      shareable,
      documents,
      clock,
      log,
      ...indexes,
    },
    { host: '127.0.0.1', port: self.dataPort, ...init.plane },
  );
  stack.defer(() => plane.stop());
  blobs.connect(plane.cascade);
  const port = await plane.start();
  if (init.join === undefined) self.dataPort = port;
  const open = (blob: TestBlob): Promise<BlobDevice> => blobs.create(blob.digest, contentOf(blob));
  return {
    self,
    identity,
    directory,
    blobs,
    plane,
    documents,
    client,
    neighbours: plane.neighbours,
    counters,
    log,
    open,
    async fill(blob) {
      const device = await open(blob);
      await device.fill(0, device.size, { signal: AbortSignal.timeout(60_000) });
      return device;
    },
    async leave() {
      await leave();
      await plane.stop();
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}
