import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createPatience } from '../../src/lazy/patience.ts';

test('patience ends without progress, goes on with it, and has an end all the same', async () => {
  using idle = createPatience({ firstMs: 30, idleMs: 30, mostMs: 10_000 });
  using busy = createPatience({ firstMs: 300, idleMs: 600, mostMs: 1_200 });
  const begun = performance.now();
  while (!busy.signal.aborted && performance.now() - begun < 10_000) {
    busy.progress();
    await sleep(5);
  }
  assert.equal(idle.signal.aborted, true);
  assert.equal(idle.signal.reason.code, 'DEADLINE_EXCEEDED');
  assert.ok(performance.now() - begun >= 1_190);
});
