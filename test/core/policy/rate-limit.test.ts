import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRateLimit } from '../../../src/core/policy/rate-limit.ts';

test('a burst passes at once, what follows waits its turn', () => {
  const clock = { ms: 0, nowMs: () => clock.ms };
  const limit = createRateLimit({ clock }, { perSecond: 10, burst: 3 });
  assert.deepEqual(
    Array.from({ length: 5 }, () => limit.take()),
    [0, 0, 0, 100, 200],
  );
  clock.ms = 400;
  assert.equal(limit.take(), 0, 'two were paid back and two came');
  clock.ms = 10_000;
  assert.deepEqual(
    Array.from({ length: 4 }, () => limit.take()),
    [0, 0, 0, 100],
    'no more than the burst is saved up',
  );
});
