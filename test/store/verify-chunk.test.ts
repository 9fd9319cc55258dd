import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { sha256 } from '../../src/core/digest.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';

test('a chunk is made only from bytes that match, on and off the calling thread', async () => {
  for (const length of [1, 65_535, 65_536, 1_000_000]) {
    const bytes = randomBytes(length);
    const ref = { digest: sha256(bytes), length };
    assert.equal((await verifyChunk(ref, bytes)).bytes, bytes);
    for (const at of [0, length >> 1, length - 1]) {
      const flipped = Buffer.from(bytes);
      flipped[at] = (flipped[at] as number) ^ 1;
      await assert.rejects(verifyChunk(ref, flipped), { code: 'CHUNK_CORRUPT' });
    }
    await assert.rejects(verifyChunk(ref, bytes.subarray(1)), { code: 'CHUNK_CORRUPT' });
    await assert.rejects(verifyChunk({ ...ref, length: length + 1 }, bytes), { code: 'CHUNK_CORRUPT' });
  }
});
