import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { MAX_CHUNK_BYTES } from '../../src/core/chunk.ts';
import type { Checkpoint, ChunkInput, ChunkTable } from '../../src/core/chunk-table.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { decodeChunkTable, encodeChunkTable } from '../../src/core/chunk-table-codec.ts';
import { parseDigest, sha256 } from '../../src/core/digest.ts';
import { hasCode, ShoalError } from '../../src/errors.ts';

const shape = fc.array(fc.record({ gap: fc.nat(3), length: fc.integer({ min: 1, max: 40_000 }) }), { maxLength: 40 });

function tableOf(chunks: readonly { gap: number; length: number }[], perExtent: number): ChunkTable {
  const builder = new ChunkTableBuilder({ compressedSize: 1_000 + chunks.length * 10 });
  let block = 0;
  let inner = 0;
  for (const [index, { gap, length }] of chunks.entries()) {
    if (index % perExtent === 0) inner = 0;
    block += gap;
    builder.add({
      deviceOffset: block * 4096,
      length,
      digest: sha256(`${index}`),
      extentOffset: Math.floor(index / perExtent) * 10,
      extentLength: 10,
      codec: index % (2 * perExtent) < perExtent ? 'gzip' : 'zstd',
      innerOffset: inner,
    });
    inner += length;
    block += Math.ceil(length / 4096);
  }
  return builder.build();
}

test('covering finds exactly the chunks that overlap a range', () => {
  fc.assert(
    fc.property(shape, fc.nat(1_500_000), fc.nat(200_000), (chunks, offset, length) => {
      const table = tableOf(chunks, 3);
      const expected: number[] = [];
      for (let row = 0; row < table.count; row += 1) {
        const { first, end } = table.blocksOf(row);
        if (length > 0 && first * 4096 < offset + length && offset < end * 4096) expected.push(row);
      }
      const { first, end } = table.covering(offset, length);
      const found = Array.from({ length: end - first }, (_, index) => first + index);
      // The range is taken in whole blocks, so it may touch the neighbours' blocks but no more.
      assert.deepEqual(found, expected);
    }),
    { numRuns: 500 },
  );
});

test('a table survives encode and decode', () => {
  fc.assert(
    fc.property(shape, fc.integer({ min: 1, max: 4 }), (chunks, perExtent) => {
      const table = tableOf(chunks, perExtent);
      const again = decodeChunkTable(encodeChunkTable(table));
      assert.deepEqual(encodeChunkTable(again), encodeChunkTable(table));
      assert.equal(again.deviceSize, table.deviceSize);
      assert.equal(again.compressedSize, table.compressedSize);
      assert.equal(again.dataBytes, table.dataBytes);
      for (let row = 0; row < table.count; row += 1) {
        assert.deepEqual(again.row(row), table.row(row));
        assert.deepEqual(again.extent(again.row(row).extent), table.extent(table.row(row).extent));
      }
    }),
  );
});

test('damaged tables are refused or decode to a table that holds together', () => {
  const table = tableOf(
    [
      { gap: 0, length: 5000 },
      { gap: 1, length: 100 },
      { gap: 0, length: 8192 },
    ],
    2,
  );
  const bytes = encodeChunkTable(table);
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(bytes.length), (at, flip, cut) => {
      const damaged = Uint8Array.from(bytes);
      damaged[at] = (damaged[at] as number) ^ flip;
      for (const candidate of [damaged, bytes.subarray(0, cut)]) {
        if (candidate.length === bytes.length && candidate !== damaged) continue;
        try {
          const table = decodeChunkTable(candidate);
          let end = 0;
          for (let row = 0; row < table.count; row += 1) {
            const blocks = table.blocksOf(row);
            assert.ok(blocks.first >= end && blocks.end > blocks.first);
            end = blocks.end;
          }
          assert.equal(table.deviceSize, end * 4096);
        } catch (error) {
          assert.ok(hasCode(error, 'STATE_CORRUPT') || hasCode(error, 'INVALID_CHUNK_TABLE'), String(error));
        }
      }
    }),
    { numRuns: 2_000 },
  );
  assert.throws(() => decodeChunkTable(new Uint8Array(4096)), { code: 'STATE_CORRUPT' });
  assert.throws(() => decodeChunkTable(randomBytes(500)), { code: 'STATE_CORRUPT' });
  const codec = Uint8Array.from(bytes);
  codec[48 + 16] = 9;
  assert.throws(() => decodeChunkTable(codec), { code: 'STATE_CORRUPT' });
  const size = Uint8Array.from(bytes);
  size[9] = 0xff;
  assert.throws(() => decodeChunkTable(size), { code: 'STATE_CORRUPT' });
});

test('what cannot be true is refused, and leaves the builder as it was', () => {
  const good: ChunkInput = {
    deviceOffset: 0,
    length: 5000,
    digest: sha256('a'),
    extentOffset: 0,
    extentLength: 100,
    codec: 'gzip',
    innerOffset: 0,
  };
  const next = { ...good, deviceOffset: 8192, extentOffset: 100 };
  const bad: Record<string, Partial<ChunkInput>> = {
    overlap: { deviceOffset: 4096 },
    misaligned: { deviceOffset: 8193 },
    'negative offset': { deviceOffset: -4096 },
    'offset past 2^53': { deviceOffset: 2 ** 60 },
    'past 16 TiB': { deviceOffset: 2 ** 44 },
    'zero length': { length: 0 },
    'fractional length': { length: 1.5 },
    'not a number': { length: Number.NaN },
    'too long': { length: MAX_CHUNK_BYTES + 1 },
    'past the end of the blob': { extentOffset: 950 },
    'negative blob offset': { extentOffset: -1 },
    'overflowing blob offset': { extentOffset: Number.MAX_SAFE_INTEGER },
    'empty extent': { extentLength: 0 },
    'extent of another length': { extentOffset: 0, extentLength: 99 },
    'extent of another codec': { extentOffset: 0, codec: 'zstd' },
    'negative inner offset': { innerOffset: -1 },
    'fractional inner offset': { innerOffset: 0.5 },
    'too deep': { innerOffset: 2 * MAX_CHUNK_BYTES },
    'past its plain extent': { codec: 'none' },
    'another algorithm': { digest: parseDigest(`blake3:${'0'.repeat(64)}`) },
    'too long a digest': { digest: parseDigest(`sha512:${'0'.repeat(128)}`) },
  };
  const expected = new ChunkTableBuilder({ compressedSize: 1_000 });
  expected.add(good);
  expected.add(next);
  for (const [why, change] of Object.entries(bad)) {
    const builder = new ChunkTableBuilder({ compressedSize: 1_000 });
    builder.add(good);
    assert.throws(() => builder.add({ ...next, ...change }), { code: 'INVALID_CHUNK_TABLE' }, why);
    builder.add(next);
    assert.deepEqual(encodeChunkTable(builder.build()), encodeChunkTable(expected.build()), why);
  }
  assert.throws(() => new ChunkTableBuilder({ compressedSize: 1, algorithm: 'sha512' }), ShoalError);
  assert.throws(() => new ChunkTableBuilder({ compressedSize: -1 }), ShoalError);
});

test('checkpoints survive the codec, and a table without any is what it always was', () => {
  const build = (checkpoint: Checkpoint | undefined): ChunkTableBuilder => {
    const builder = new ChunkTableBuilder({ compressedSize: 1000 });
    const place = { deviceOffset: 0, length: 100, extentOffset: 10, extentLength: 50, innerOffset: 0 };
    const codec = checkpoint === undefined ? ('gzip' as const) : ('deflate' as const);
    builder.addRaw({ ...place, codec, checkpoint }, new Uint8Array(32));
    return builder;
  };
  for (const checkpoint of [
    { bits: 0, window: undefined },
    { bits: 7, window: 0 },
    { bits: 3, window: 0xfffffe },
  ]) {
    const table = build(checkpoint).build();
    assert.deepEqual(decodeChunkTable(encodeChunkTable(table)).extent(0), table.extent(0));
    assert.deepEqual(table.extent(0).checkpoint, checkpoint);
  }
  assert.equal(new DataView(encodeChunkTable(build(undefined).build()).buffer).getUint32(48 + 20, true), 0);
  for (const bad of [
    { bits: 8, window: 0 },
    { bits: -1, window: 0 },
    { bits: 1, window: -1 },
    { bits: 1, window: 0xffffff },
  ]) {
    assert.throws(() => build(bad), { code: 'INVALID_CHUNK_TABLE' });
  }
});

test('a table of chunks without digests has one for every extent, and its names survive the codec', () => {
  const place = {
    deviceOffset: 0,
    length: 100,
    extentOffset: 10,
    extentLength: 50,
    innerOffset: 0,
    codec: 'gzip',
  } as const;
  const build = (extentDigest: Uint8Array | undefined): ChunkTable => {
    const builder = new ChunkTableBuilder({ compressedSize: 1000, algorithm: 'span', packed: true });
    builder.addRaw({ ...place, extentDigest }, randomBytes(32));
    builder.addRaw({ ...place, deviceOffset: 100, innerOffset: 100, extentDigest }, randomBytes(32));
    return builder.build();
  };
  const table = build(randomBytes(32));
  const again = decodeChunkTable(encodeChunkTable(table));
  assert.deepEqual(again.columns.extents, table.columns.extents);
  assert.deepEqual([again.row(1).digest, again.shareable], [table.row(1).digest, false]);
  assert.match(again.row(1).digest, /^span:[0-9a-f]{64}$/);
  for (const bad of [undefined, randomBytes(31)]) assert.throws(() => build(bad), { code: 'INVALID_CHUNK_TABLE' });
});
