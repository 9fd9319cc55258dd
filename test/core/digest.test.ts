import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digestBytes, digestFromBytes, parseDigest } from '../../src/core/digest.ts';

test('only canonical digests parse', () => {
  const hex = 'ab'.repeat(32);
  assert.equal(digestFromBytes('sha256', digestBytes(parseDigest(`sha256:${hex}`))), `sha256:${hex}`);
  const bad = [
    `sha256:${hex}0`,
    `sha256:${hex.slice(1)}`,
    `sha256:${hex.toUpperCase()}`,
    `md5:${hex}`,
    `sha256:../../${hex.slice(6)}`,
    `sha256:${hex}\n`,
    `sha256:${hex.slice(1)}\0`,
    `sha512:${hex}`,
    hex,
    '',
    'a'.repeat(10_240),
    undefined,
    { toString: () => `sha256:${hex}` },
  ];
  for (const text of bad) assert.throws(() => parseDigest(text), { code: 'INVALID_DIGEST' }, String(text));
});
