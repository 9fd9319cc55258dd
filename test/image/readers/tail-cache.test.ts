import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ShoalError } from '../../../src/errors.ts';
import { cacheTail } from '../../../src/image/readers/tail-cache.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';

const signal = AbortSignal.timeout(10_000);
const BYTES = Uint8Array.from({ length: 200 }, (_, at) => at);

test('every range is what the blob has, and the tail is read once', async () => {
  for (const tailBytes of [1, 50, 200, 1000]) {
    const blob = new MemoryBlob(BYTES);
    const cached = cacheTail(blob, tailBytes);
    assert.equal(cached.size, 200);
    assert.equal(cached.digest, blob.digest);
    const tailStart = Math.max(0, 200 - tailBytes);
    for (let offset = 0; offset < 200; offset += 7) {
      for (let length = 1; offset + length <= 200; length += 5) {
        const bytes = await cached.read(offset, length, { signal });
        assert.deepEqual([...bytes], [...BYTES.subarray(offset, offset + length)]);
      }
    }
    const tailReads = blob.reads.filter(({ offset, length }) => offset + length > tailStart);
    assert.deepEqual(tailReads, [{ offset: tailStart, length: 200 - tailStart }]);
  }
});

test("a failed tail is not remembered, and a range past the end is the blob's to refuse", async () => {
  const blob = new MemoryBlob(BYTES);
  const cached = cacheTail(blob, 50);
  blob.onRead = () => {
    throw new ShoalError('SOURCE_FAILED', 'gone');
  };
  await assert.rejects(cached.read(190, 10, { signal }), { code: 'SOURCE_FAILED' });
  blob.onRead = () => {};
  assert.equal((await cached.read(190, 10, { signal })).byteLength, 10);
  await assert.rejects(cached.read(190, 11, { signal }), { code: 'RANGE_MISMATCH' });
});
