import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestHex } from '../../src/core/digest.ts';
import { hasCode } from '../../src/errors.ts';
import { silentLogger } from '../../src/log.ts';
import { createDemandOrder, decodeOrder, encodeOrder, type RowRun } from '../../src/store/demand-order.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { randomChunks, testBlob, verified } from './blob-fixture.ts';
import { contentOf, openStore, stateRoot } from './store-fixture.ts';

const { signal } = new AbortController();

test('the chunks of a first start are recorded in the order they were read, and known after a restart', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(12, 4096));
  const start = async (reads: number[]): Promise<readonly RowRun[]> => {
    await using store = await openStore(root.path, { readahead: false });
    store.connect(createMemoryStore(await verified(blob)));
    const device = (await store.open(blob.digest)) ?? (await store.create(blob.digest, contentOf(blob)));
    const known = device.startOrder;
    for (const row of reads) await device.fill(4096 * row, 4096, { signal });
    await device.fill(4096 * 11, 4096, { signal, urgency: 'prefetch' });
    return known;
  };
  assert.deepEqual(await start([7, 8, 2, 7, 3, 0]), []);
  const expected = [
    { first: 7, end: 9 },
    { first: 2, end: 4 },
    { first: 0, end: 1 },
  ];
  assert.deepEqual(await start([5, 6]), expected);
  assert.deepEqual(await start([]), expected, 'a later start does not change it');

  await writeFile(join(root.path, 'blobs', digestHex(blob.digest), 'order'), 'rotten');
  assert.deepEqual(await start([9]), [], 'what cannot be believed is recorded anew');
});

test('what lies ahead of a sequential reader counts as read', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(40, 64 * 1024));
  {
    await using store = await openStore(root.path);
    store.connect(createMemoryStore(await verified(blob)));
    const device = await store.create(blob.digest, contentOf(blob));
    for (const row of [4, 5, 6]) await device.fill(65_536 * row, 65_536, { signal });
  }
  await using store = await openStore(root.path);
  const order = (await store.open(blob.digest))?.startOrder ?? [];
  assert.equal(order.length, 1);
  assert.ok(order[0]?.first === 4 && order[0].end > 10, JSON.stringify(order));
});

test('a record is bounded in size and time', async () => {
  const saved: Uint8Array[] = [];
  const parts = { log: silentLogger, save: async (payload: Uint8Array) => void saved.push(payload) };
  const many = createDemandOrder(parts, { name: 'many' });
  for (let row = 0; row < 20_000; row += 2) many.note(row, row + 1);
  await many.close();
  assert.deepEqual(
    saved.map(({ byteLength }) => byteLength),
    [8 * 4096],
  );
  const late = createDemandOrder(parts, { name: 'late', recordMs: 20 });
  late.note(1, 2);
  await new Promise((resolve) => setTimeout(resolve, 60));
  late.note(5, 6);
  await late.close();
  assert.deepEqual(decodeOrder(saved[1] as Uint8Array, 10), [{ first: 1, end: 2 }]);
});

test('any bytes are an order of this table or STATE_CORRUPT', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.integer({ min: 0, max: 1000 }), (bytes, rows) => {
      try {
        const runs = decodeOrder(bytes, rows);
        assert.ok(runs.every(({ first, end }) => first < end && end <= rows));
        assert.deepEqual(encodeOrder(runs), bytes);
      } catch (error) {
        assert.ok(hasCode(error, 'STATE_CORRUPT'), String(error));
      }
    }),
  );
});
