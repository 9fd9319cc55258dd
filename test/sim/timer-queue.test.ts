import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Queued, TimerQueue } from '../../sim/engine/timer-queue.ts';

interface Item extends Queued {
  readonly time: number;
  readonly made: number;
}

test('timers leave in the order of their time, then of their making, whichever were taken out before', () => {
  const action = fc.record({
    delay: fc.oneof(fc.nat(20), fc.double({ min: 0, max: 3, noNaN: true }), fc.constant(50_000)),
    next: fc.constantFrom('nothing', 'nothing', 'remove', 'take'),
    which: fc.nat(5_000),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 3_000 }), (actions) => {
      const queue = new TimerQueue<Item>();
      const kept: Item[] = [];
      let nowMs = 0;
      const takeFirst = (): void => {
        const [expected] = kept.toSorted((a, b) => a.time - b.time || a.made - b.made);
        assert.equal(queue.firstMs, expected?.time ?? Number.POSITIVE_INFINITY);
        if (expected === undefined) return;
        assert.equal(queue.take(), expected);
        assert.equal(expected.at, -1);
        kept.splice(kept.indexOf(expected), 1);
        nowMs = expected.time;
      };
      for (const [made, { delay, next, which }] of actions.entries()) {
        const item: Item = { at: -1, bucket: undefined, time: nowMs + delay, made };
        queue.add(item, item.time);
        kept.push(item);
        if (next === 'remove') queue.remove(kept.splice(which % kept.length, 1)[0] as Item);
        if (next === 'take') takeFirst();
      }
      while (kept.length > 0) takeFirst();
      assert.equal(queue.firstMs, Number.POSITIVE_INFINITY);
    }),
    { numRuns: 30 },
  );
});
