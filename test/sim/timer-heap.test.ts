import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { TimerHeap } from '../../sim/engine/timer-heap.ts';

test('timers leave in the order of their time, then of their making, whichever were taken out before', () => {
  const action = fc.record({ time: fc.nat(20), remove: fc.boolean(), which: fc.nat(5_000) });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 3_000 }), (actions) => {
      const heap = new TimerHeap<{ at: number; time: number; made: number }>();
      const kept: { at: number; time: number; made: number }[] = [];
      for (const [made, { time, remove, which }] of actions.entries()) {
        const item = { at: -1, time, made };
        heap.add(item, time);
        kept.push(item);
        if (remove) heap.remove(kept.splice(which % kept.length, 1)[0] as (typeof kept)[number]);
      }
      assert.equal(heap.size, kept.length);
      const expected = kept.toSorted((a, b) => a.time - b.time || a.made - b.made);
      for (const item of expected) {
        assert.equal(heap.firstMs, item.time);
        assert.equal(heap.take(), item);
      }
      assert.equal(heap.firstMs, Number.POSITIVE_INFINITY);
    }),
    { numRuns: 30 },
  );
});
