import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { ShoalError } from '../../src/errors.ts';
import { decodeExtent } from '../../src/image/codec.ts';

const signal = AbortSignal.timeout(60_000);

const CODERS = {
  none: (bytes: Uint8Array) => bytes,
  gzip: (bytes: Uint8Array) => gzipSync(bytes),
  zstd: (bytes: Uint8Array) => zstdCompressSync(bytes),
} as const;

const CODECS = ['none', 'gzip', 'zstd'] as const;

/** Half noise, half text, so that compressed sizes vary. */
function sample(length: number): Buffer {
  const bytes = Buffer.alloc(length, 'shoal of fish ');
  randomBytes(Math.floor(length / 2)).copy(bytes);
  return bytes;
}

for (const codec of CODECS) {
  describe(codec, () => {
    test('gives the wanted bytes, however much follows them in the extent', async () => {
      for (const wanted of [1, 63, 4096, 32 * 1024, 32 * 1024 + 1, 300_000, 4 * 1024 * 1024]) {
        const content = sample(wanted);
        for (const after of [0, 512, 100_000]) {
          const coded = CODERS[codec](Buffer.concat([content, Buffer.alloc(after)]));
          const decoded = await decodeExtent(codec, coded, wanted, { signal });
          assert.deepEqual(Buffer.compare(decoded.subarray(0, wanted), content), 0, `${wanted} + ${after}`);
        }
      }
    });

    test('refuses data that ends early, at every size', async () => {
      for (const wanted of [100, 40_000, 1_000_000]) {
        const coded = CODERS[codec](sample(wanted - 1));
        await assert.rejects(decodeExtent(codec, coded, wanted, { signal }), { code: 'CHUNK_CORRUPT' });
        const cut = CODERS[codec](sample(wanted));
        const half = cut.subarray(0, cut.byteLength >> 1);
        await assert.rejects(decodeExtent(codec, half, wanted, { signal }), { code: 'CHUNK_CORRUPT' });
      }
    });

    test('an aborted signal ends it with the reason', async () => {
      const reason = new Error('stop');
      const coded = CODERS[codec](sample(1_000_000));
      await assert.rejects(decodeExtent(codec, coded, 1_000_000, { signal: AbortSignal.abort(reason) }), reason);
    });
  });
}

test('a decode that is under way ends when its signal is aborted', async () => {
  for (const codec of ['gzip', 'zstd'] as const) {
    const controller = new AbortController();
    const coded = CODERS[codec](sample(16 * 1024 * 1024));
    const decoding = decodeExtent(codec, coded, 16 * 1024 * 1024, { signal: controller.signal });
    const reason = new Error('stop');
    controller.abort(reason);
    await assert.rejects(decoding, reason);
  }
});

test('an extent that expands without end costs no more than an honest one', async () => {
  const bombs = {
    gzip: gzipSync(Buffer.alloc(256 * 1024 * 1024)),
    zstd: zstdCompressSync(Buffer.alloc(256 * 1024 * 1024)),
  };
  for (const codec of ['gzip', 'zstd'] as const) {
    for (const wanted of [10, 20_000, 1_000_000]) {
      await decodeExtent(codec, bombs[codec], wanted, { signal });
      const before = process.memoryUsage();
      const decoded = await decodeExtent(codec, bombs[codec], wanted, { signal });
      const grown = process.memoryUsage().arrayBuffers - before.arrayBuffers;
      assert.ok(decoded.byteLength <= wanted + 1024 * 1024);
      assert.ok(grown < 4 * 1024 * 1024, `${codec} ${wanted}: ${grown} bytes more`);
    }
  }
});

test('gzip headers with extra field, name, comment and checksum are skipped', async () => {
  const plain = gzipSync('content');
  const fields = Buffer.concat([
    Buffer.from([3, 0, 1, 2, 3]),
    Buffer.from('name\0'),
    Buffer.from('comment\0'),
    Buffer.from([0xaa, 0xbb]),
  ]);
  const header = Buffer.from(plain.subarray(0, 10));
  header[3] = 0x04 | 0x08 | 0x10 | 0x02;
  const coded = Buffer.concat([header, fields, plain.subarray(10)]);
  assert.equal(String(await decodeExtent('gzip', coded, 7, { signal })), 'content');
});

test('only the first of two gzip members is decoded', async () => {
  const coded = Buffer.concat([gzipSync('one'), gzipSync('two')]);
  await assert.rejects(decodeExtent('gzip', coded, 6, { signal }), { code: 'CHUNK_CORRUPT' });
});

test('a zstd window over 128 MiB is refused', async () => {
  const params = { [constants.ZSTD_c_windowLog]: 28, [constants.ZSTD_c_enableLongDistanceMatching]: 1 };
  const coded = zstdCompressSync(Buffer.alloc(300 * 1024 * 1024), { params });
  for (const wanted of [100, 1_000_000]) {
    await assert.rejects(decodeExtent('zstd', coded, wanted, { signal }), { code: 'CHUNK_CORRUPT' });
  }
});

test('random and damaged bytes give CHUNK_CORRUPT or bytes, nothing else', async () => {
  const honest = sample(50_000);
  const coded = { none: honest, gzip: CODERS.gzip(honest), zstd: CODERS.zstd(honest) };
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...CODECS),
      fc.boolean(),
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(60_000),
      fc.integer({ min: 1, max: 100_000 }),
      async (codec, damage, noise, where, wanted) => {
        let bytes: Uint8Array = noise;
        if (damage) {
          bytes = Uint8Array.from(coded[codec]);
          bytes.set(noise.subarray(0, Math.max(0, bytes.byteLength - where)), Math.min(where, bytes.byteLength));
        }
        try {
          const decoded = await decodeExtent(codec, bytes, wanted, { signal });
          assert.equal(decoded.byteLength, wanted);
        } catch (error) {
          assert.ok(error instanceof ShoalError && error.code === 'CHUNK_CORRUPT', String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});
