import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSampling } from '../../../src/core/policy/sampling.ts';

test('after some failures in a row only each so many-th try is made, until one succeeds', () => {
  const sampling = createSampling({ failures: 3, each: 4 });
  for (let round = 0; round < 3; round += 1) {
    assert.equal(sampling.worthTrying(), true);
    sampling.tried(false);
  }
  const asked = Array.from({ length: 8 }, () => sampling.worthTrying());
  assert.deepEqual(asked, [false, false, false, true, false, false, false, true]);
  sampling.tried(true);
  assert.equal(sampling.worthTrying(), true);
});
