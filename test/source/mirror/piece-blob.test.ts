import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { sha256 } from '../../../src/core/digest.ts';
import { createPieceCache, pieceBlob } from '../../../src/source/mirror/piece-blob.ts';
import { FakeRangedBlob } from '../../store/blob-fixture.ts';

const signal = new AbortController().signal;

function blobOf(bytes: Uint8Array, init = { pieceBytes: 1_000, pieces: 4, keptMs: 10_000 }) {
  const inner = new FakeRangedBlob({ digest: sha256(bytes), compressed: bytes });
  return { inner, blob: pieceBlob(inner, { cache: createPieceCache(init) }, init) };
}

test('reads of any size and place give the blob’s bytes, and only ever ask for whole pieces', async () => {
  const bytes = randomBytes(7_777);
  const range = fc.tuple(fc.nat(7_776), fc.integer({ min: 1, max: 7_777 }));
  await fc.assert(
    fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 12 }), async (ranges) => {
      const { inner, blob } = blobOf(bytes);
      const reads = ranges.map(async ([offset, most]) => {
        const length = Math.min(most, bytes.length - offset);
        let last = 0;
        const read = await blob.read(offset, length, {
          signal,
          onBytes(arrived, filled) {
            assert.ok(filled > last);
            last = filled;
            assert.ok(bytes.subarray(offset, offset + filled).equals(arrived.subarray(0, filled)));
          },
        });
        assert.ok(bytes.subarray(offset, offset + length).equals(read));
        assert.equal(last, length);
      });
      await Promise.all(reads);
      for (const { offset, length } of inner.reads) {
        assert.equal(offset % 1_000, 0);
        assert.equal(length, Math.min(1_000, bytes.length - offset));
      }
      const together = new Set(inner.reads.map(({ offset }) => offset));
      assert.equal(together.size, inner.reads.length, 'no piece was fetched twice');
    }),
  );
});

test('a reader has its part of a piece before the piece is whole', async () => {
  const bytes = randomBytes(1_000);
  const { inner, blob } = blobOf(bytes);
  const rest = Promise.withResolvers<void>();
  inner.arrive = async (arriving, onBytes) => {
    onBytes(arriving, 400);
    await rest.promise;
  };
  const seen: number[] = [];
  const onBytes = (_bytes: Uint8Array, filled: number): void => void seen.push(filled);
  const first = blob.read(0, 300, { signal, onBytes });
  await sleep(5);
  const second = blob.read(100, 800, { signal, onBytes });
  await sleep(5);
  assert.deepEqual(seen, [300, 300]);
  rest.resolve();
  await Promise.all([first, second]);
  assert.deepEqual(seen, [300, 300, 800]);
});

test('what a reader gets is its own: changing it changes nothing for others', async () => {
  const bytes = randomBytes(1_000);
  const { blob } = blobOf(bytes);
  (await blob.read(0, 1_000, { signal })).fill(0);
  assert.ok(bytes.equals(await blob.read(0, 1_000, { signal })));
});

test('a piece is fetched for as long as somebody wants it, and a failure is not kept', async () => {
  const bytes = randomBytes(1_000);
  const { inner, blob } = blobOf(bytes);
  inner.before = async (own) => {
    await sleep(30);
    own.throwIfAborted();
  };
  const giver = new AbortController();
  const given = blob.read(0, 10, { signal: giver.signal });
  const stays = blob.read(5, 10, { signal });
  giver.abort(new Error('gave up'));
  await assert.rejects(given, /gave up/);
  assert.ok(bytes.subarray(5, 15).equals(await stays));
  assert.equal(inner.reads.length, 1);
  const failing = blobOf(bytes);
  failing.inner.before = async () => {
    throw new Error('broken');
  };
  await assert.rejects(failing.blob.read(0, 10, { signal }), /broken/);
  failing.inner.before = async () => {};
  assert.ok(bytes.subarray(0, 10).equals(await failing.blob.read(0, 10, { signal })));
});
