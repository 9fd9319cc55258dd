import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PREFETCH_RUN_BYTES, type PrefetchPlan, restOrder, startOrder } from '../../src/core/policy/prefetch-order.ts';

const MIB = 1024 * 1024;
const plan = (changes: Partial<PrefetchPlan> = {}): PrefetchPlan => ({
  deviceSize: 64 * MIB,
  hintBytes: 0,
  recorded: [],
  seed: 'node blob',
  ...changes,
});

test('a start gets what the image marks, then what an earlier start read, in that order', () => {
  const recorded = [
    { offset: 40 * MIB, length: 5 * MIB },
    { offset: 4 * MIB, length: 4 * MIB },
    { offset: 63 * MIB, length: 4 * MIB },
  ];
  const ranges = [...startOrder(plan({ hintBytes: 6 * MIB, recorded }))];
  assert.deepEqual(
    ranges.map(({ offset, length }) => [offset / MIB, length / MIB]),
    [
      [0, 4],
      [4, 2],
      [40, 4],
      [44, 1],
      [6, 2],
      [63, 1],
    ],
  );
});

test('the rest covers every byte of the device once, whatever its size and seed', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 300 * MIB }), fc.string(), (deviceSize, seed) => {
      const ranges = [...restOrder(plan({ deviceSize, seed }))].sort((a, b) => a.offset - b.offset);
      let at = 0;
      for (const { offset, length } of ranges) {
        assert.equal(offset, at);
        assert.ok(length > 0 && length <= PREFETCH_RUN_BYTES);
        at += length;
      }
      assert.equal(at, deviceSize);
    }),
  );
});

test('nodes start in different places, one node always in the same', () => {
  const order = (seed: string): number[] => [...restOrder(plan({ seed, deviceSize: 1024 * MIB }))].map((r) => r.offset);
  assert.deepEqual(order('a'), order('a'));
  const firsts = Array.from({ length: 64 }, (_, node) => order(`node ${node}`)[0]);
  assert.ok(new Set(firsts).size > 32, `${new Set(firsts).size} different first pieces of 64 nodes`);
  // eight nodes that each have a tenth of the layer have most of what they could have together
  const tenth = Array.from({ length: 8 }, (_, node) => order(`n${node}`).slice(0, 26)).flat();
  assert.ok(new Set(tenth).size > 120, `${new Set(tenth).size} different pieces of ${tenth.length}`);
});
