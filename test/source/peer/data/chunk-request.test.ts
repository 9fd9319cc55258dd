import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseDigest } from '../../../../src/core/digest.ts';
import { chunkTarget, parseChunkTarget } from '../../../../src/source/peer/data/chunk-request.ts';
import { DATA_LIMITS } from '../../../../src/source/peer/data/limits.ts';

const digest = fc
  .tuple(fc.constantFrom('sha256', 'blake3', 'sha512'), fc.uint8Array({ minLength: 64, maxLength: 64 }))
  .map(([name, bytes]) =>
    parseDigest(
      `${name}:${Buffer.from(bytes)
        .toString('hex')
        .slice(0, name === 'sha512' ? 128 : 64)}`,
    ),
  );

test('what is made is parsed back', () => {
  fc.assert(
    fc.property(
      digest,
      fc.constantFrom('demand', 'prefetch'),
      fc.nat(DATA_LIMITS.maxWaitMs),
      (name, urgency, waitMs) => {
        const request = { digest: name, urgency: urgency as 'demand' | 'prefetch', waitMs };
        const target = chunkTarget(request);
        assert.ok(target.length <= DATA_LIMITS.maxPathLength);
        assert.deepEqual(parseChunkTarget(target), request);
      },
    ),
  );
});

test('anything else is refused, without an error', () => {
  const hex = 'a'.repeat(64);
  for (const target of [
    undefined,
    null,
    7,
    {},
    '',
    '/',
    '*',
    `/chunk/sha256/${hex}?`,
    `/chunk/sha256/${hex}?wait=`,
    `/chunk/sha256/${hex}?wait=00`,
    `/chunk/sha256/${hex}?wait=1&wait=2`,
    `/chunk/sha256/${hex}?&prefetch`,
    `/chunk/sha256/${hex}?prefetch&wait=1`,
    `/chunk/sha256/${hex}?wait=1prefetch`,
    `/chunk/sha256/${hex}#`,
    `/chunk/sha256/${hex}a`,
    `/chunk/sha512/${hex}`,
    `/chunk/sha1/${hex}`,
    `/chunk/sha256/${hex.toUpperCase()}`,
    `//chunk/sha256/${hex}`,
    `/chunk/sha256/${hex}\n`,
    `/chunk/sha256/${hex}`.padEnd(100_000, '0'),
  ]) {
    assert.equal(parseChunkTarget(target), undefined, String(target).slice(0, 100));
  }
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), (text) => assert.equal(parseChunkTarget(`/${text}`), undefined)),
  );
});

test('a wait is cut to what a server grants', () => {
  const hex = 'b'.repeat(64);
  assert.equal(parseChunkTarget(`/chunk/sha256/${hex}?wait=999999`)?.waitMs, DATA_LIMITS.maxWaitMs);
});
