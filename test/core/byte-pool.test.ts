import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freeBytes, pooledBytes, takeBytes, trimBytes } from '../../src/core/byte-pool.ts';

test('frees bytes that have a buffer of their own, and nothing else', () => {
  const own = new Uint8Array(100_001);
  freeBytes(own);
  assert.equal(own.byteLength, 0);
  const part = new Uint8Array(200_000).subarray(0, 100_000);
  freeBytes(part);
  assert.equal(part.byteLength, 100_000);
  const small = Buffer.from('from the pool');
  freeBytes(small);
  assert.equal(small.toString(), 'from the pool');
});

test('a buffer that was given back is lent again, to one user at a time', () => {
  const first = takeBytes(1_000_000);
  const again = new Uint8Array(first.buffer);
  freeBytes(first);
  freeBytes(again);
  assert.equal(pooledBytes(), first.buffer.byteLength);
  const [second, third] = [takeBytes(1_000_001), takeBytes(1_000_000)];
  assert.equal(second.buffer, first.buffer);
  assert.equal(second.byteLength, 1_000_001);
  assert.notEqual(third.buffer, first.buffer);
  for (const each of [second, third]) freeBytes(each);
});

test('no buffer is more than a quarter larger than asked for', () => {
  for (let length = 64 * 1024; length <= 16 * 1024 * 1024; length = Math.ceil(length * 1.01)) {
    const bytes = takeBytes(length);
    assert.equal(bytes.byteLength, length);
    assert.ok(bytes.buffer.byteLength <= 1.25 * length, `${bytes.buffer.byteLength} for ${length}`);
    freeBytes(bytes);
  }
  const large = takeBytes(17 * 1024 * 1024);
  assert.equal(large.buffer.byteLength, large.byteLength);
});

test('what waits is bounded, and let go of when nobody needs it', () => {
  const all = Array.from({ length: 200 }, () => takeBytes(1024 * 1024));
  for (const each of all) freeBytes(each);
  assert.ok(pooledBytes() <= 32 * 1024 * 1024);
  trimBytes();
  const needed = takeBytes(1024 * 1024);
  freeBytes(needed);
  trimBytes();
  assert.equal(pooledBytes(), needed.buffer.byteLength);
  trimBytes();
  assert.equal(pooledBytes(), 0);
});
