import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { hasCode } from '../../../../src/errors.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import { createMemoryStore } from '../../../../src/store/memory-store.ts';
import { randomChunks, testBlob, verified } from '../../../store/blob-fixture.ts';
import { CountingSource } from '../../../store/store-fixture.ts';
import { chunkStoreSuite } from '../../../suites/chunk-store-suite.ts';
import { startMember } from './member.ts';

const signal = new AbortController().signal;

chunkStoreSuite('neighbours', async (contents) => {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(contents);
  const holder = await startMember(hub, { outside: createMemoryStore(await verified(blob)) });
  await holder.fill(blob);
  const reader = await startMember(hub);
  const device = await reader.open(blob);
  return {
    store: reader.neighbours,
    refs: contents.map((_, row) => device.ref(row)),
    async cleanup() {
      await reader[Symbol.asyncDispose]();
      await holder[Symbol.asyncDispose]();
    },
  };
});

test('a thousand readers of one cold chunk on eight nodes make one read outside', { timeout: 60_000 }, async () => {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(1, 1_000_000));
  await using stack = new AsyncDisposableStack();
  const outside = await CountingSource.of(blob);
  outside.before = () => systemClock.sleep(100);
  const members = await Promise.all(Array.from({ length: 8 }, () => startMember(hub, { outside })));
  for (const member of members) stack.use(member);
  const devices = await Promise.all(members.map((member) => member.open(blob)));
  const reads = devices.flatMap((device) => Array.from({ length: 125 }, () => device.fill(0, 4096, { signal })));
  assert.equal(reads.length, 1_000);
  await Promise.all(reads);
  assert.equal(outside.gets.length, 1);
  const fromNeighbours = members.reduce((sum, { counters }) => sum + counters.neighbour.chunks, 0);
  assert.equal(fromNeighbours, 7);
});

test('missing is said quickly when nobody has the chunk', { timeout: 20_000 }, async () => {
  const hub = createMemoryHub({ clock: systemClock });
  await using reader = await startMember(hub);
  await using _other = await startMember(hub);
  const device = await reader.open(testBlob(randomChunks(3, 5_000)));
  const started = performance.now();
  await assert.rejects(reader.neighbours.get(device.ref(0), { signal }), (error) => hasCode(error, 'CHUNK_MISSING'));
  assert.ok(performance.now() - started < 100, `${performance.now() - started}`);
});
