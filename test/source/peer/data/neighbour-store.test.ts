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

test('a chunk that another image has is found by its digest, until that image is removed', {
  timeout: 30_000,
}, async () => {
  const hub = createMemoryHub({ clock: systemClock });
  const [common, ...rest] = randomChunks(4, 80_000) as [Uint8Array, ...Uint8Array[]];
  const theirs = testBlob([rest[0] as Uint8Array, common]);
  const ours = testBlob([common, rest[1] as Uint8Array, rest[2] as Uint8Array]);
  const outside = await CountingSource.of(ours);
  await using holder = await startMember(hub, { outside: createMemoryStore(await verified(theirs)) });
  await using reader = await startMember(hub, { outside });
  await using late = await startMember(hub, { outside });
  const held = await holder.fill(theirs);
  await held.flush();
  // Announced when it is on disk for good.
  while (!hub.providers.has(ours.table.row(0).digest)) await systemClock.sleep(10);
  const device = await reader.open(ours);
  await device.fill(0, 4096, { signal });
  assert.equal(reader.counters.neighbour.chunks, 1);
  assert.equal(outside.gets.length, 0);

  await holder.blobs.remove(theirs.digest);
  await reader.leave();
  const other = await late.open(ours);
  await other.fill(0, 4096, { signal });
  assert.equal(late.counters.neighbour.chunks, 0);
  assert.equal(outside.gets.length, 1);
});

test('a read by demand goes before prefetch that waits for a neighbour', { timeout: 30_000 }, async () => {
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(40, 100_000));
  await using holder = await startMember(hub, {
    outside: createMemoryStore(await verified(blob)),
    plane: { uploadBytesPerSecond: 1_000_000 },
  });
  await holder.fill(blob);
  await using reader = await startMember(hub);
  const device = await reader.open(blob);
  const all = device.fill(0, device.size, { signal, urgency: 'prefetch' });
  await systemClock.sleep(300);
  const last = device.table.row(39).deviceOffset;
  await device.fill(last, 4096, { signal });
  const { presentBytes } = device.stats();
  assert.ok(presentBytes < 30 * 102_400, `${presentBytes} bytes were here before what somebody waited for`);
  await all;
});

test('missing is said quickly when nobody has the chunk', { timeout: 20_000 }, async () => {
  const hub = createMemoryHub({ clock: systemClock });
  await using reader = await startMember(hub);
  await using _other = await startMember(hub);
  const device = await reader.open(testBlob(randomChunks(3, 5_000)));
  const started = performance.now();
  await assert.rejects(reader.neighbours.get(device.ref(0), { signal }), (error) => hasCode(error, 'CHUNK_MISSING'));
  assert.ok(performance.now() - started < 1_000, `${performance.now() - started}`);
});
