import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { openBlobStore } from '../../src/store/blob-store.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { createSharingStore } from '../../src/store/shared-chunks.ts';
import { MemoryIndexDb, randomChunks, testBlob, verified } from './blob-fixture.ts';
import { RecordingLogger, stateRoot } from './store-fixture.ts';

test('a chunk that comes while the index is asked for it is found', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(2, 10_000));
  await using blobs = await openBlobStore(
    { log: new RecordingLogger(), clock: systemClock },
    { root: root.path, db: new MemoryIndexDb(), readahead: false },
  );
  const local = createLocalStore({ blobs });
  let meanwhile = async (): Promise<void> => {};
  const { shared, ...store } = createSharingStore({
    inner: createMemoryStore(await verified(blob)),
    local: {
      ...local,
      async locate(digest) {
        const found = await local.locate(digest);
        await meanwhile();
        return found;
      },
    },
    blobs,
    shareable: () => true,
  });
  blobs.connect(store);
  const info = { format: 'test', size: blob.compressed.length, sources: [] };
  const device = await blobs.create(blob.digest, { chunks: blob.table, tree: new Uint8Array(1), info });
  const { digest } = blob.table.row(0);
  assert.equal(await shared.locate(digest), undefined);
  meanwhile = () => device.fill(0, 1, { signal: AbortSignal.timeout(10_000) });
  assert.deepEqual(await shared.locate(digest), device.ref(0));
  assert.equal(shared.underWay(digest, 'demand'), undefined);
  meanwhile = async () => {};
  assert.equal(await shared.locate(blob.table.row(1).digest), undefined);
});
