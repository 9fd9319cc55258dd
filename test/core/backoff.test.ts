import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffMs } from '../../src/core/policy/backoff.ts';

test('the wait doubles with each failure and stays at its longest', () => {
  const waits = [1, 2, 3, 6, 7, 8, 2_000].map((failures) => backoffMs(failures, { firstMs: 1_000, longestMs: 60_000 }));
  assert.deepEqual(waits, [1_000, 2_000, 4_000, 32_000, 60_000, 60_000, 60_000]);
});
