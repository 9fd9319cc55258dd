import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { spanChunk } from '../../src/core/chunk.ts';
import { digestBytes, parseDigest, sha256, spanName } from '../../src/core/digest.ts';
import { verifyChunk, verifySpan } from '../../src/store/verify-chunk.ts';

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

test('a chunk without a digest of its own is never verified, and one with a digest never made without', async () => {
  const bytes = randomBytes(100);
  const named = { digest: spanName(randomBytes(32)), length: 100 };
  await assert.rejects(verifyChunk(named, bytes), { code: 'CHUNK_CORRUPT' });
  assert.equal(spanChunk(named, bytes).bytes, bytes);
  assert.throws(() => spanChunk(named, bytes.subarray(1)), { code: 'CHUNK_CORRUPT' });
  assert.throws(() => spanChunk({ digest: sha256(bytes), length: 100 }, bytes), { code: 'CHUNK_CORRUPT' });
  assert.throws(() => parseDigest(named.digest), { code: 'INVALID_DIGEST' });
});

test('a compressed range is accepted by its own digest only', async () => {
  for (const length of [1, 65_536, 1_000_000]) {
    const bytes = randomBytes(length);
    const digest = digestBytes(sha256(bytes));
    await verifySpan(bytes, digest);
    bytes[length - 1] = (bytes[length - 1] as number) ^ 1;
    await assert.rejects(verifySpan(bytes, digest), { code: 'CHUNK_CORRUPT' });
  }
});
