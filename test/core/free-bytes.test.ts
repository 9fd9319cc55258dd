import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freeBytes } from '../../src/core/free-bytes.ts';

test('frees bytes that have a buffer of their own, and nothing else', () => {
  const own = new Uint8Array(100_000);
  freeBytes(own);
  assert.equal(own.byteLength, 0);
  const part = new Uint8Array(200_000).subarray(0, 100_000);
  freeBytes(part);
  assert.equal(part.byteLength, 100_000);
  const small = Buffer.from('from the pool');
  freeBytes(small);
  assert.equal(small.toString(), 'from the pool');
});
