import assert from 'node:assert/strict';
import { test } from 'node:test';
import { claimUnit } from '../../../src/core/policy/claim-units.ts';
import { createExpiringSet } from '../../../src/core/policy/expiring-set.ts';
import { HEDGE_LIMITS } from '../../../src/core/policy/hedge-limits.ts';
import { createHedging } from '../../../src/core/policy/hedging.ts';
import { NEIGHBOUR_LIMITS } from '../../../src/core/policy/neighbour-limits.ts';
import { createNeighbourScores } from '../../../src/core/policy/neighbour-score.ts';
import { UPLOAD_LIMITS } from '../../../src/core/policy/upload-limits.ts';
import { createUploadQueue, type Upload } from '../../../src/core/policy/upload-queue.ts';
import { randomChunks, testBlob } from '../../store/blob-fixture.ts';

const MIB = 1024 * 1024;

/** Numbers that look random and are the same each time (LCG of Numerical Recipes). */
function seeded(seed = 1): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const near = { id: 'near', zone: 'a' };
const far = { id: 'far', zone: 'b' };
const ok = (bytes: number, firstByteMs: number, transferMs: number) =>
  ({ kind: 'ok', bytes, firstByteMs, transferMs }) as const;

test('what a neighbour is expected to take follows its recent answers, its load and its failures', () => {
  const scores = createNeighbourScores({ ownZone: '', random: seeded() });
  assert.equal(scores.expectedMs('x', 125_000), 4, '3 ms and 1 Gbit/s until it is known');
  scores.started('x');
  assert.equal(scores.expectedMs('x', 125_000), 8, 'one request under way');
  scores.ended('x', ok(MIB, 10, 8), 0);
  assert.equal(scores.expectedMs('x', MIB), 18);
  scores.started('x');
  scores.ended('x', ok(MIB, 30, 8), 0);
  assert.equal(scores.expectedMs('x', MIB), 10 + 0.25 * 20 + 8, 'a quarter of the news');
  scores.started('x');
  scores.ended('x', { kind: 'failed' }, 0);
  assert.equal(scores.expectedMs('x', MIB), 23 * (1 + 15 * 0.25));
  scores.started('x');
  scores.ended('x', undefined, 0);
  assert.equal(scores.stats('x', 0).requests, 4);
});

test('a neighbour that fails rests, longer each time, and requests that fail together are one failure', () => {
  const scores = createNeighbourScores({ ownZone: '', random: seeded() });
  const fail = (nowMs: number): number => {
    scores.started('x');
    scores.ended('x', { kind: 'failed' }, nowMs);
    return scores.stats('x', nowMs).restingMs;
  };
  assert.equal(fail(0), 500);
  assert.equal(fail(100), 400);
  assert.equal(scores.usable('x', 499), false);
  assert.equal(scores.usable('x', 500), true);
  assert.equal(fail(500), 1_000);
  assert.equal(fail(1_500), 2_000);
  for (let nowMs = 10_000; nowMs < 10_000_000; nowMs += 100_000) fail(nowMs);
  assert.equal(fail(20_000_000), NEIGHBOUR_LIMITS.longestRestMs);
  scores.started('x');
  scores.ended('x', ok(1, 1, 1), 20_100_000);
  assert.equal(fail(20_200_000), 500, 'one success and it starts again');
});

test('one wrong chunk bans a neighbour for ten minutes', () => {
  const scores = createNeighbourScores({ ownZone: '', random: seeded() });
  scores.started('x');
  scores.ended('x', { kind: 'corrupt' }, 1_000);
  assert.equal(scores.usable('x', 600_999), false);
  assert.equal(scores.usable('x', 601_000), true);
  assert.deepEqual(
    [scores.stats('x', 2_000).banned, scores.stats('x', 601_000).banned, scores.stats('x', 2_000).corrupt],
    [true, false, 1],
  );
  for (let index = 0; index < 2 * NEIGHBOUR_LIMITS.maxRemembered; index += 1) {
    scores.started(`other ${index}`);
    scores.ended(`other ${index}`, { kind: 'missing' }, 2_000);
  }
  assert.equal(scores.usable('x', 3_000), false, 'a ban is not forgotten for newcomers');
});

test('a busy neighbour is left alone for as long as it says, at most five seconds, and that is no error', () => {
  const scores = createNeighbourScores({ ownZone: '', random: seeded() });
  scores.started('x');
  scores.ended('x', { kind: 'busy', retryAfterMs: 60_000 }, 0);
  assert.equal(scores.stats('x', 0).restingMs, 5_000);
  assert.equal(scores.stats('x', 0).errors, 0);
  assert.equal(scores.choose([{ id: 'x', zone: '' }], 1, 4_999), undefined);
});

test('the own zone is asked unless another is more than four times as fast', () => {
  const scores = createNeighbourScores({ ownZone: 'a', random: seeded() });
  assert.equal(scores.choose([near, far], MIB, 0), near);
  scores.started('near');
  scores.ended('near', ok(MIB, 10, 8), 0);
  scores.started('far');
  scores.ended('far', ok(MIB, 2, 4), 0);
  assert.equal(scores.choose([near, far], MIB, 0), near, '18 ms against 6');
  for (let round = 0; round < 30; round += 1) {
    scores.started('near');
    scores.ended('near', ok(MIB, 100, 8), 0);
  }
  assert.equal(scores.choose([near, far], MIB, 0), far, 'about 108 ms against 6');
  scores.started('near');
  scores.ended('near', { kind: 'corrupt' }, 0);
  assert.equal(scores.choose([near], MIB, 0), undefined);
});

test('load spreads over equal holders: of two taken at random the less loaded is asked', () => {
  const scores = createNeighbourScores({ ownZone: '', random: seeded() });
  const holders = Array.from({ length: 10 }, (_unused, index) => ({ id: `h${index}`, zone: '' }));
  const asked = new Map<string, number>();
  for (let read = 0; read < 1_000; read += 1) {
    const { id } = scores.choose(holders, MIB, 0) as { id: string };
    scores.started(id);
    asked.set(id, (asked.get(id) ?? 0) + 1);
  }
  const loads = [...asked.values()];
  assert.equal(loads.length, 10);
  assert.ok(Math.max(...loads) - Math.min(...loads) <= 4, `${loads}`);
});

test('the hedge delay is the p95 of recent reads of such a size, within bounds', () => {
  const hedging = createHedging({ sharers: () => 1 });
  assert.equal(hedging.neighbourDelayMs(MIB), HEDGE_LIMITS.neighbourUnknownMs);
  for (let ms = 1; ms <= 40; ms += 1) hedging.note('neighbour', MIB, ms);
  assert.equal(hedging.neighbourDelayMs(MIB), 39);
  assert.equal(hedging.neighbourDelayMs(1_000), HEDGE_LIMITS.neighbourUnknownMs, 'small chunks are another matter');
  for (let round = 0; round < 64; round += 1) hedging.note('neighbour', MIB, 1);
  assert.equal(hedging.neighbourDelayMs(MIB), HEDGE_LIMITS.neighbourMinMs);
  for (let round = 0; round < 64; round += 1) hedging.note('neighbour', MIB, 5_000);
  assert.equal(hedging.neighbourDelayMs(MIB), HEDGE_LIMITS.neighbourMaxMs);
  for (let round = 0; round < 64; round += 1) hedging.note('outside', MIB, 700);
  assert.equal(hedging.holderDelayMs(MIB), 1_400);
  assert.equal(hedging.outsideDelayMs(MIB), 700);
});

test('second reads from outside are for when it would be faster, and few', () => {
  const hedging = createHedging({ sharers: () => 8 });
  for (let round = 0; round < 8; round += 1) hedging.note('outside', MIB, 300);
  assert.equal(hedging.takeOutside(MIB, 299, 1), false);
  assert.equal(hedging.takeOutside(MIB, 300, 1), false, 'what is free for eight nodes is not enough for one');
  let taken = 0;
  for (let read = 0; read < 10_000; read += 1) {
    hedging.note('neighbour', MIB, 5);
    if (hedging.takeOutside(MIB, 10_000, 1)) taken += 1;
  }
  // Of eight nodes that read the same 10,000 chunks: 3 % of the image together.
  assert.ok(taken >= 36 && taken <= 38, `${taken}`);

  const alone = createHedging({ sharers: () => 2 });
  assert.equal(alone.takeOutside(MIB, 999, 1), false, 'a second is assumed while nothing is known');
  assert.equal(alone.takeOutside(MIB / 4, 1_000, 2), false, 'two chunks cost two');
  assert.equal(alone.takeOutside(MIB / 4, 1_000, 1), true);
  assert.equal(alone.takeOutside(MIB / 4, 1_000, 1), false);
});

test('what nobody had is believed for a while, and not more than so many are remembered', () => {
  const set = createExpiringSet({ forMs: 100, most: 3 });
  for (const [index, key] of ['a', 'b', 'c', 'd'].entries()) set.add(key, index);
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((key) => set.has(key, 50)),
    [false, true, true, true],
  );
  assert.equal(set.has('b', 101), false);
  assert.equal(set.has('d', 102), true);
  set.delete('d');
  assert.equal(set.has('d', 50), false);
  set.add('c', 1_000);
  assert.equal(set.size, 1);
});

const upload = (peer: string, urgency: Upload['urgency'] = 'demand', bytes = MIB): Upload => ({ peer, urgency, bytes });

test('uploads: demand before prefetch, and neighbours in turn however much one asks', () => {
  const queue = createUploadQueue({ bytesPerSecond: 0, slots: 2 });
  const first = [upload('greedy'), upload('greedy'), upload('greedy'), upload('greedy')];
  for (const each of first) assert.equal(queue.add(each, 0), undefined);
  assert.deepEqual([queue.next(0), queue.next(0), queue.next(0)], [first[0], first[1], undefined]);
  const modest = upload('modest');
  const later = upload('later', 'prefetch');
  queue.add(later, 0);
  queue.add(modest, 0);
  queue.finished(first[0] as Upload);
  assert.equal(queue.next(0), modest, 'who has nothing under way goes first');
  queue.finished(first[1] as Upload);
  assert.equal(queue.next(0), first[2]);
  queue.finished(modest);
  assert.equal(queue.next(0), first[3], 'prefetch waits for all demand');
  queue.finished(first[2] as Upload);
  assert.equal(queue.next(0), undefined, 'and leaves slots to demand that may come');
  queue.finished(first[3] as Upload);
  assert.equal(queue.next(0), later);
  assert.deepEqual([queue.active, queue.queued], [1, 0]);
});

test('uploads: a budget is kept to the byte over time', () => {
  const queue = createUploadQueue({ bytesPerSecond: 10 * MIB, slots: 16 });
  let sent = 0;
  let nowMs = 0;
  while (nowMs < 10_000) {
    while (queue.queued < 3) queue.add(upload(`p${queue.queued}`), nowMs);
    for (let each = queue.next(nowMs); each !== undefined; each = queue.next(nowMs)) {
      sent += each.bytes;
      queue.finished(each);
    }
    nowMs += queue.waitMs(nowMs) ?? 1;
  }
  assert.ok(Math.abs(sent / (100 * MIB) - 1) <= 0.03, `${sent / MIB} MiB in 10 s`);
});

test('uploads: a queue that is too long refuses, and one that leaves makes room', () => {
  const queue = createUploadQueue({ bytesPerSecond: 0, slots: 1 });
  const mine = Array.from({ length: UPLOAD_LIMITS.queuedPerPeer }, () => upload('p', 'prefetch', 1));
  for (const each of mine) assert.equal(queue.add(each, 0), undefined);
  assert.equal(queue.add(upload('p', 'demand', 1), 0), UPLOAD_LIMITS.retryAfterMs);
  assert.equal(queue.add(upload('q', 'demand', 1), 0), undefined);
  assert.equal(queue.remove(mine[0] as Upload), true);
  assert.equal(queue.remove(mine[0] as Upload), false);
  assert.equal(queue.add(upload('p', 'demand', 1), 0), undefined);

  const slow = createUploadQueue({ bytesPerSecond: 1_000_000, slots: 16 });
  let refused = 0;
  for (let index = 0; index < 10; index += 1) if (slow.add(upload(`p${index}`, 'prefetch', 500_000), 0)) refused += 1;
  assert.ok(refused >= 4 && refused <= 6, `${refused} of 5 s of work, 2 s may wait`);
});

test('rows of one extent are claimed as one, and regions follow from the table alone', () => {
  const table = testBlob(randomChunks(60, 200_000), { perExtent: 4 }).table;
  assert.deepEqual(claimUnit(table, 5), { first: 4, end: 8, region: 0 });
  assert.deepEqual(claimUnit(table, 7), claimUnit(table, 4));
  // 200,000 bytes take 49 blocks: row 20 starts at 4,014,080, row 24 at 4,816,896.
  assert.deepEqual(claimUnit(table, 23), { first: 20, end: 24, region: 0 });
  assert.equal(claimUnit(table, 24).region, 1);
  assert.deepEqual(claimUnit(table, 59), { first: 56, end: 60, region: 2 });
});
