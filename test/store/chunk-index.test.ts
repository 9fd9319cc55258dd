import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Level } from 'level';
import { digestBytes, sha256 } from '../../src/core/digest.ts';
import { blobPrefix, createChunkIndex } from '../../src/store/chunk-index.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { randomChunks, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, stateRoot } from './store-fixture.ts';

const encodings = { keyEncoding: 'view', valueEncoding: 'view' } as const;

test('the index finds, overwrites and forgets in LevelDB', async () => {
  await using root = await stateRoot();
  await using level = new Level(join(root.path, 'meta'));
  const index = createChunkIndex(level.sublevel<Uint8Array, Uint8Array>('chunks', encodings));
  const [a, b] = [sha256('a'), sha256('b')];
  const digests = Array.from({ length: 5_000 }, (_, row) => sha256(`chunk ${row}`));
  await index.add(
    a,
    digests.map((digest, row) => ({ digest: digestBytes(digest), row })),
  );
  await index.add(b, [{ digest: digestBytes(digests[7] as never), row: 70_000 }]);
  const found = await Promise.all(digests.map((digest) => index.find(digest)));
  for (const [row, place] of found.entries()) {
    const expected = row === 7 ? { blobPrefix: blobPrefix(b), row: 70_000 } : { blobPrefix: blobPrefix(a), row };
    assert.deepEqual(place, expected);
  }
  await index.remove(a, digests.map(digestBytes));
  const left = await Promise.all(digests.map((digest) => index.find(digest)));
  assert.deepEqual(
    left.map((place, row) => (place === undefined ? -1 : row)).filter((row) => row >= 0),
    [7],
    "b's own record stays",
  );
});

test('after a restart a chunk is found in a blob that is not open yet', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(10, 5_000));
  const signal = new AbortController().signal;
  for (const round of ['fill', 'find']) {
    await using level = new Level(join(root.path, 'meta'));
    await using store = await openStore(root.path, { db: level.sublevel<Uint8Array, Uint8Array>('chunks', encodings) });
    const local = createLocalStore({ blobs: store });
    if (round === 'fill') {
      store.connect(await CountingSource.of(blob));
      const device = await store.create(blob.digest, contentOf(blob));
      await device.fill(0, device.size, { signal });
      continue;
    }
    assert.equal(store.devices().length, 0);
    const ref = await local.locate(blob.table.row(4).digest);
    assert.deepEqual(ref, { digest: blob.table.row(4).digest, length: 5_000, blob: blob.digest, index: 4 });
    assert.deepEqual(Buffer.from((await local.get(ref, { signal })).bytes), blob.chunks[4]);
    assert.equal(await local.locate(sha256('never seen')), undefined);
  }
});
