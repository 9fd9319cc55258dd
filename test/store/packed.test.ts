import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { sha256 } from '../../src/core/digest.ts';
import type { TestBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, stateRoot } from './store-fixture.ts';

const signal = AbortSignal.timeout(120_000);

/** A blob whose chunks lie side by side, `gap` bytes apart. */
function packedBlob(pieces: readonly { gap: number; length: number }[]): TestBlob {
  const builder = new ChunkTableBuilder({ compressedSize: 1 + pieces.length, packed: true });
  const chunks: Uint8Array[] = [];
  let deviceOffset = 0;
  for (const [index, { gap, length }] of pieces.entries()) {
    const bytes = randomBytes(length);
    deviceOffset += gap;
    builder.add({
      deviceOffset,
      length,
      digest: sha256(bytes),
      extentOffset: index,
      extentLength: 1,
      codec: 'zstd',
      innerOffset: 0,
    });
    deviceOffset += length;
    chunks.push(bytes);
  }
  return {
    digest: sha256(randomBytes(32)),
    table: builder.build(),
    chunks,
    compressed: randomBytes(1 + pieces.length),
  };
}

/** What the device should hold. */
function expectedDevice({ table, chunks }: TestBlob): Buffer {
  const device = Buffer.alloc(table.deviceSize);
  for (const [row, bytes] of chunks.entries()) device.set(bytes, table.row(row).deviceOffset);
  return device;
}

const PIECES = fc.array(
  fc.record({
    gap: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(9000)),
    length: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.integer({ min: 1, max: 20_000 })),
  }),
  { minLength: 1, maxLength: 12 },
);
const READS = fc.array(fc.record({ at: fc.double({ min: 0, max: 0.999, noNaN: true }), blocks: fc.nat(3) }), {
  maxLength: 6,
});

test('whatever ranges are read of neighbours that share blocks, present blocks hold all their bytes', async () => {
  await using root = await stateRoot();
  await fc.assert(
    fc.asyncProperty(PIECES, READS, fc.boolean(), async (pieces, reads, reopen) => {
      const blob = packedBlob(pieces);
      const expected = expectedDevice(blob);
      const source = await CountingSource.of(blob);
      let store = await openStore(root.path);
      store.connect(source);
      let device = await store.create(blob.digest, contentOf(blob));
      for (const [index, { at, blocks }] of reads.entries()) {
        const first = Math.floor(at * (device.size / 4096));
        const end = Math.min(first + 1 + blocks, device.size / 4096);
        await device.fill(first * 4096, (end - first) * 4096, { signal });
        assert.ok(device.presence.hasRange(first, end), `blocks ${first} to ${end}`);
        const data = await readFile(device.path);
        for (let block = 0; block < device.size / 4096; block += 1) {
          if (!device.presence.hasRange(block, block + 1)) continue;
          const [from, to] = [block * 4096, block * 4096 + 4096];
          assert.deepEqual(data.subarray(from, to), expected.subarray(from, to), `block ${block}`);
        }
        if (reopen && index === 1) {
          await store.close();
          store = await openStore(root.path);
          store.connect(source);
          device = (await store.open(blob.digest)) as typeof device;
        }
      }
      await device.fill(0, device.size, { signal });
      assert.ok(device.presence.complete);
      assert.deepEqual(await readFile(device.path), expected);
      const { checked, dropped } = await device.verifyRange(0, device.size, { signal });
      assert.deepEqual([checked, dropped], [blob.chunks.length, 0]);
      if (!reopen) assert.equal(new Set(source.gets.map(({ index }) => index)).size, source.gets.length);
      await store.remove(blob.digest);
      await store.close();
    }),
    { numRuns: 60 },
  );
});

test('a damaged chunk is replaced without touching what its neighbours have in shared blocks', async () => {
  await using root = await stateRoot();
  const blob = packedBlob([
    { gap: 0, length: 5000 },
    { gap: 0, length: 100 },
    { gap: 0, length: 9000 },
    { gap: 0, length: 3 },
  ]);
  const source = await CountingSource.of(blob);
  const store = await openStore(root.path);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(0, device.size, { signal });
  writeSync(device.fd, Buffer.from('x'), 0, 1, 6000);
  assert.deepEqual(await device.verifyRange(0, device.size, { signal }), { checked: 4, dropped: 1 });
  assert.equal(device.presence.complete, false);
  await device.fill(0, device.size, { signal });
  assert.ok(device.presence.complete);
  assert.deepEqual(await readFile(device.path), expectedDevice(blob));
  await store.close();
});
