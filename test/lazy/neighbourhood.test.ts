import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import type { ChunkExplanation, LayerExplanation } from '../../src/control/explain.ts';
import type { Digest } from '../../src/core/digest.ts';
import { createExplainer } from '../../src/lazy/explainer.ts';
import { type Neighbourhood, openNeighbourhood } from '../../src/lazy/neighbourhood.ts';
import { silentLogger } from '../../src/log.ts';
import { createMemoryDirectory, createMemoryHub, type MemoryHub } from '../../src/source/peer/memory-directory.ts';
import { type BlobStore, openBlobStore } from '../../src/store/blob-store.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { count, sourceCounters } from '../../src/store/count.ts';
import { createFetchLedger, type FetchLedger } from '../../src/store/ledger.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { waitFor } from '../lab/process.ts';
import { freePort } from '../lab/registry.ts';
import { MemoryIndexDb, randomChunks, type TestBlob, testBlob, verified } from '../store/blob-fixture.ts';
import { contentOf, stateRoot } from '../store/store-fixture.ts';

const { signal } = new AbortController();
const image = 'r.example/app:1';

type Directory = ReturnType<typeof createMemoryDirectory> & { stop(): Promise<void> };

interface Node extends AsyncDisposable {
  readonly blobs: BlobStore;
  readonly ledger: FetchLedger;
  readonly place: Neighbourhood<Directory>;
  explain(target: string): ReturnType<ReturnType<typeof createExplainer>['explain']>;
}

/** All of a node but its trap, in the swarm of `hub`; outside is `outside`. */
async function startNode(
  hub: MemoryHub,
  init: { id: string; outside: ChunkStore; blob: TestBlob; shareable?: (blob: Digest) => boolean },
): Promise<Node> {
  const stack = new AsyncDisposableStack();
  const root = stack.use(await stateRoot());
  let place: Neighbourhood<Directory> | undefined;
  const blobs = stack.use(
    await openBlobStore(
      {
        ...{ log: silentLogger, clock: systemClock },
        onHeld: (blob, digests) => place?.held(blob, digests),
        onGone: (_, digests) => place?.gone(digests),
      },
      { root: root.path, db: new MemoryIndexDb(), flushAfterMs: 20, readahead: false },
    ),
  );
  const ledger = createFetchLedger({ clock: systemClock });
  const counted = (inner: ChunkStore, name: string): ChunkStore =>
    ledger.source(name, count({ clock: systemClock, inner }, sourceCounters(name)));
  const dataPort = await freePort();
  const local = createLocalStore({ blobs });
  const opened = await openNeighbourhood<Directory>(
    {
      blobs,
      local,
      own: counted(local, 'local'),
      outside: counted(init.outside, 'origin'),
      counters: sourceCounters('neighbour'),
      ledger,
      shareable: init.shareable ?? (() => true),
      clock: systemClock,
      log: silentLogger,
    },
    { root: root.path, host: '127.0.0.1', dataPort, uploadBytesPerSecond: 0 },
    async (held, { fingerprint }) => {
      const self = { id: init.id, address: '127.0.0.1', dataPort, zone: 'z', fingerprint };
      const directory = createMemoryDirectory({ hub, held }, { self });
      return Object.assign(directory, { stop: async () => directory.close() });
    },
  );
  stack.defer(() => opened.stop());
  place = opened;
  blobs.connect(opened.plane.cascade);
  await blobs.create(init.blob.digest, contentOf(init.blob));
  const record = { reference: image, layers: [{ digest: init.blob.digest, lazy: true }] };
  const explainer = createExplainer({
    blobs,
    images: { list: () => [record], namesOf: () => [image] },
    ledger,
    directory: opened.directory,
  });
  return {
    blobs,
    ledger,
    place: opened,
    explain: (target) => explainer.explain(target, { signal }),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function fill(node: Node, blob: TestBlob): Promise<void> {
  const device = await node.blobs.open(blob.digest);
  await device?.fill(0, device.size, { signal: AbortSignal.timeout(30_000) });
  await device?.flush();
}

test('a second node gets a layer from the first, and explains who has it and who gave it', async () => {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(6, 70_000));
  const outside = createMemoryStore(await verified(blob));
  await using first = await startNode(hub, { id: 'first', outside, blob });
  await using second = await startNode(hub, { id: 'second', outside: createMemoryStore(), blob });
  await fill(first, blob);
  await fill(second, blob);
  assert.equal(first.ledger.tallies(blob.digest).origin?.bytes, 420_000);
  assert.equal(second.ledger.tallies(blob.digest).neighbour?.bytes, 420_000);

  const layer = (await second.explain(blob.digest)) as LayerExplanation;
  assert.deepEqual(layer.holders, [{ peer: 'first', address: '127.0.0.1', zone: 'z', chunks: 6 }]);
  assert.deepEqual(
    layer.peers.map(({ peer, chunks, others }) => [peer, chunks, others]),
    [['first', 6, {}]],
  );
  const digest = blob.table.row(2).digest;
  const chunk = (await second.explain(digest)) as ChunkExplanation;
  assert.deepEqual(chunk.places, [{ layer: blob.digest, row: 2, bytes: 70_000, here: true }]);
  assert.deepEqual(chunk.fetches[0]?.steps.at(-1)?.peer, 'first');
  assert.equal(chunk.whyNoNeighbour, undefined);
  assert.ok(chunk.holders?.some(({ peer }) => peer === 'first'));
  // the first one fetched it before anybody had it
  const origin = (await first.explain(digest)) as ChunkExplanation;
  assert.equal(origin.fetches[0]?.source, 'origin');
  assert.match(origin.whyNoNeighbour ?? '', /neighbour/);
});

test('chunks of a removed layer are withdrawn, and those of a private one are never given away', async () => {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(3, 70_000));
  const outside = createMemoryStore(await verified(blob));
  await using holder = await startNode(hub, { id: 'holder', outside, blob });
  await using other = await startNode(hub, { id: 'other', outside: createMemoryStore(), blob });
  await fill(holder, blob);
  const { digest } = blob.table.row(0);
  const found = async (): Promise<string[]> => {
    const ids: string[] = [];
    for await (const { id } of other.place.directory.find(digest, { signal })) ids.push(id);
    return ids;
  };
  await waitFor('the announcement', async () => (await found()).includes('holder'));
  await holder.blobs.remove(blob.digest);
  await waitFor('the withdrawal', async () => (await found()).length === 0);

  const secret = testBlob(randomChunks(3, 70_000));
  const source = createMemoryStore(await verified(secret));
  await using keeper = await startNode(hub, { id: 'keeper', outside: source, blob: secret, shareable: () => false });
  await fill(keeper, secret);
  await other.blobs.create(secret.digest, contentOf(secret));
  await assert.rejects(fill(other, secret), { code: 'CHUNK_MISSING' });
});
