import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { NEIGHBOUR_LIMITS } from '../../../../src/core/policy/neighbour-limits.ts';
import { hasCode } from '../../../../src/errors.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import { createMemoryStore } from '../../../../src/store/memory-store.ts';
import { type Misdeed, startHostileNeighbour } from '../../../fakes/hostile-neighbour.ts';
import { randomChunks, testBlob, verified } from '../../../store/blob-fixture.ts';
import { CountingSource, wrongRows } from '../../../store/store-fixture.ts';
import { startMember } from './member.ts';

const ROWS = 20;
const LENGTH = 200_000;

/** A reader, a neighbour that misbehaves and, unless `alone`, one that holds everything. */
async function scene(misdeed: Misdeed, { alone = false } = {}) {
  const stack = new AsyncDisposableStack();
  const hub = createMemoryHub({ clock: systemClock });
  const blob = testBlob(randomChunks(ROWS, LENGTH));
  const outside = await CountingSource.of(blob);
  if (!alone) {
    const holder = stack.use(await startMember(hub, { outside: createMemoryStore(await verified(blob)) }));
    await holder.fill(blob);
  }
  const reader = stack.use(await startMember(hub, { outside }));
  const device = await reader.open(blob);
  const hostile = stack.use(await startHostileNeighbour(hub, { misdeed, rows: ROWS, length: LENGTH }));
  return { reader, device, hostile, outside, stack };
}

const signal = new AbortController().signal;

for (const misdeed of ['wrong bytes', 'another length'] as const) {
  test(`a neighbour that answers with ${misdeed} is banned after one chunk, and no byte of it is used`, {
    timeout: 30_000,
  }, async () => {
    const { reader, device, hostile, outside, stack } = await scene(misdeed, { alone: true });
    await using _ = stack;
    await device.fill(0, 4096, { signal });
    assert.equal(hostile.asked(), 1);
    assert.equal(reader.neighbours.stats().corrupt, 1);
    assert.deepEqual(reader.directory.peers(), [], 'the directory is told');
    await device.fill(0, device.size, { signal });
    assert.equal(hostile.asked(), 1);
    assert.deepEqual(await wrongRows(device), []);
    assert.equal(outside.gets.length, ROWS);
    assert.ok(NEIGHBOUR_LIMITS.banMs >= 600_000);
    assert.equal(reader.log.lines.filter(({ level, message }) => level === 'warn' && /banned/.test(message)).length, 1);
  });
}

for (const misdeed of [
  'truncation',
  'one byte a second',
  'reset in the middle',
  'silence',
  'a redirect',
  'endless headers',
  'another certificate',
] as const) {
  test(`a read goes on with another neighbour when one answers with ${misdeed}`, { timeout: 60_000 }, async () => {
    const { device, outside, stack } = await scene(misdeed);
    await using _ = stack;
    for (let row = 0; row < ROWS; row += 1) await device.fill(device.table.row(row).deviceOffset, 4096, { signal });
    assert.deepEqual(await wrongRows(device), []);
    assert.ok(outside.gets.length <= 2, `${outside.gets.length} reads went outside`);
  });

  test(`a read goes outside when the only neighbour answers with ${misdeed}`, { timeout: 60_000 }, async () => {
    const { device, outside, stack } = await scene(misdeed, { alone: true });
    await using _ = stack;
    const started = performance.now();
    await device.fill(0, 4096, { signal });
    const ms = performance.now() - started;
    assert.equal(outside.gets.length, 1);
    assert.deepEqual(await wrongRows(device), []);
    // F10: a reset is noticed at once; F12: no progress for 2 s, and most often a hedge was faster.
    assert.ok(ms < (misdeed === 'silence' || misdeed === 'one byte a second' ? 5_000 : 3_000), `${misdeed}: ${ms} ms`);
  });
}

test('what a neighbour does never fails a read of the neighbour store with anything but CHUNK_MISSING', {
  timeout: 60_000,
}, async () => {
  for (const misdeed of [
    'wrong bytes',
    'truncation',
    'a redirect',
    'endless headers',
    'another certificate',
  ] as const) {
    const { reader, device, stack } = await scene(misdeed, { alone: true });
    await using _ = stack;
    await assert.rejects(reader.neighbours.get(device.ref(3), { signal }), (error) => hasCode(error, 'CHUNK_MISSING'));
  }
});
