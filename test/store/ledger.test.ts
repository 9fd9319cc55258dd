import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../src/clock.ts';
import type { ChunkRef } from '../../src/core/chunk.ts';
import { ShoalError } from '../../src/errors.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { dedup } from '../../src/store/dedup.ts';
import { createFetchLedger } from '../../src/store/ledger.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { chunkMissing, route } from '../../src/store/route.ts';
import { chunkStoreSuite } from '../suites/chunk-store-suite.ts';
import { randomChunks, testBlob, verified } from './blob-fixture.ts';

const { signal } = new AbortController();

/** Time that passes when a store says so. */
class SteppedClock implements Clock {
  now = 0;
  nowMs = (): number => this.now;
  wallTimeMs = (): number => 1_000_000 + this.now;
  sleep = async (): Promise<void> => {};
}

chunkStoreSuite('ledger', async (contents) => {
  const blob = testBlob(contents);
  const ledger = createFetchLedger({ clock: new SteppedClock() });
  const store = ledger.watch(ledger.source('x', createMemoryStore(await verified(blob))));
  return { store, refs: contents.map((_, index) => refOf(blob, index)) };
});

test('a fetch is remembered with every source that was asked, how long each took, and why it did not serve', async () => {
  const clock = new SteppedClock();
  const ledger = createFetchLedger({ clock });
  const blob = testBlob(randomChunks(2, 5000));
  const origin = createMemoryStore(await verified(blob));
  const neighbour = failing((ref) => {
    clock.now += 5;
    const error = new ShoalError('CHUNK_CORRUPT', 'wrong bytes');
    ledger.answered(ref.digest, { source: 'neighbour', peer: 'p1', ms: 3, error });
    throw chunkMissing(ref, 'nobody announced it');
  });
  const slow: ChunkStore = {
    ...origin,
    get: (ref, options) => {
      clock.now += 20;
      return origin.get(ref, options);
    },
  };
  const store = dedup(
    ledger.watch(
      route(
        ledger.source('local', createMemoryStore()),
        ledger.source('neighbour', neighbour),
        ledger.source('origin', slow),
      ),
    ),
  );
  const [first, second] = [refOf(blob, 0), refOf(blob, 1)];
  await Promise.all([store.get(first, { signal }), store.get(first, { signal, urgency: 'prefetch' })]);
  await store.get(second, { signal, urgency: 'prefetch' });

  const records = ledger.recent(() => true, 10);
  assert.deepEqual(
    records.map(({ digest, urgency, bytes }) => [digest, urgency, bytes]),
    [
      [second.digest, 'prefetch', 5000],
      [first.digest, 'demand', 5000],
    ],
  );
  assert.deepEqual(records[1]?.steps, [
    { source: 'neighbour', peer: 'p1', outcome: 'CHUNK_CORRUPT', ms: 3, why: 'wrong bytes' },
    { source: 'neighbour', outcome: 'missing', ms: 5, why: 'nobody announced it' },
    { source: 'origin', outcome: 'served', ms: 20 },
  ]);
  const tallies = ledger.tallies(blob.digest);
  assert.deepEqual(tallies.origin, {
    requests: 2,
    chunks: 2,
    bytes: 10_000,
    missing: 0,
    errors: {},
    servedMs: 40,
    slowestMs: 20,
  });
  assert.deepEqual([tallies.local?.missing, tallies.neighbour?.missing], [2, 2]);
});

test('failures are counted by code, and a fetch nobody could serve is remembered as such', async () => {
  const ledger = createFetchLedger({ clock: new SteppedClock() });
  const blob = testBlob(randomChunks(1, 100));
  const broken = failing(() => {
    throw new ShoalError('SOURCE_FAILED', 'x'.repeat(5000));
  });
  const store = ledger.watch(ledger.source('origin', broken));
  await assert.rejects(store.get(refOf(blob, 0), { signal }), { code: 'SOURCE_FAILED' });
  assert.deepEqual(ledger.tallies(blob.digest).origin?.errors, { SOURCE_FAILED: 1 });
  const [record] = ledger.recent(() => true, 1);
  assert.equal(record?.steps.at(-1)?.outcome, 'SOURCE_FAILED');
  assert.ok((record?.steps.at(-1)?.why?.length ?? 0) <= 160);
});

test('only the latest fetches are kept, and peers that answer late are ignored', async () => {
  const ledger = createFetchLedger({ clock: new SteppedClock() }, { records: 4 });
  const blob = testBlob(randomChunks(9, 100));
  const store = ledger.watch(ledger.source('origin', createMemoryStore(await verified(blob))));
  for (let index = 0; index < 9; index += 1) await store.get(refOf(blob, index), { signal });
  ledger.answered(refOf(blob, 8).digest, { source: 'neighbour', peer: 'late', ms: 1 });
  const kept = ledger.recent(() => true, 100);
  assert.deepEqual(
    kept.map(({ digest }) => digest),
    [8, 7, 6, 5].map((index) => refOf(blob, index).digest),
  );
  assert.equal(kept[0]?.steps.length, 1);
});

function failing(get: (ref: ChunkRef) => never): ChunkStore {
  return { has: () => false, get: async (ref) => get(ref), close: async () => {} };
}

function refOf(blob: ReturnType<typeof testBlob>, index: number): ChunkRef {
  const { digest, length } = blob.table.row(index);
  return { digest, length, blob: blob.digest, index };
}
