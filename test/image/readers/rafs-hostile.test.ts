import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { type Digest, parseDigest, sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { LayerContent } from '../../../src/image/layer-reader.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { NYDUS } from '../../../src/image/readers/rafs/nydus-labels.ts';
import { createRafsReader } from '../../../src/image/readers/rafs/rafs.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { compress, type RafsOptions } from '../../fakes/rafs/blob-writer.ts';
import { type RafsEntry, TYPE } from '../../fakes/rafs/entries.ts';
import { bootstrapLayer, rafsImage } from '../../fakes/rafs/image.ts';
import { mixed } from '../../fakes/rafs/sample.ts';

const signal = AbortSignal.timeout(240_000);

type Blobs = ReadonlyMap<Digest, Uint8Array>;

const ENTRIES: readonly RafsEntry[] = [
  { path: '', mode: TYPE.dir | 0o755 },
  { path: 'dir', mode: TYPE.dir | 0o755, xattrs: new Map([['user.a', Buffer.from('value')]]) },
  { path: 'dir/big', mode: TYPE.file | 0o644, content: mixed(40_000, 1) },
  { path: 'dir/link', mode: TYPE.symlink | 0o777, target: 'big' },
  { path: 'dir/one', mode: TYPE.file | 0o644, content: mixed(5_000, 2), inode: 'one' },
  { path: 'dir/two', mode: TYPE.file | 0o644, content: mixed(5_000, 2), inode: 'one' },
  { path: 'small', mode: TYPE.file | 0o644, content: mixed(300, 3), blob: 1 },
];

async function read(boot: Buffer, blobs: Blobs, version = 6, maxEntries = 10_000): Promise<LayerContent> {
  const { descriptor, bytes } = bootstrapLayer(boot, version);
  const { content } = await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), {
    signal,
    readers: [createRafsReader({ limits: { maxEntries } })],
    openBlob: async (digest) => new MemoryBlob(blobs.get(digest) ?? Buffer.alloc(2000), digest),
  });
  return content;
}

/** Reads it, or is refused with a code that fits; within a time that has nothing to do with what sizes it claims. */
async function survives(reading: () => Promise<LayerContent>): Promise<void> {
  const started = performance.now();
  try {
    const { devices = [] } = await reading();
    for (const { chunks } of devices) assert.ok(chunks.deviceSize < 2 ** 45);
  } catch (error) {
    assert.ok(error instanceof ShoalError, String((error as Error).stack));
    assert.match(error.code, /^(INVALID_LAYER|INVALID_CHUNK_TABLE|UNSUPPORTED_LAYER|TOO_LARGE)$/);
  }
  assert.ok(performance.now() - started < 5_000);
}

const WORDS = [0, 1, 2, 0x7f, 0xff, 0x1000, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];

/** Changes of single bytes and of whole 32-bit words, mostly where something is. */
function edits(boot: Buffer): fc.Arbitrary<{ at: number; value: number; isWord: boolean }[]> {
  const used: number[] = [];
  for (let at = 0; at + 4 <= boot.byteLength; at += 4) if (boot.readUInt32LE(at) !== 0) used.push(at);
  const place = fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom(...used) },
    fc.nat(boot.byteLength / 4 - 2).map((word) => 4 * word),
  );
  const value = fc.oneof(fc.constantFrom(...WORDS), fc.nat(0xffffffff));
  return fc.array(fc.record({ at: place, value, isWord: fc.boolean() }), { minLength: 1, maxLength: 4 });
}

function edited(boot: Buffer, changes: readonly { at: number; value: number; isWord: boolean }[]): Buffer {
  const copy = Buffer.from(boot);
  for (const { at, value, isWord } of changes) {
    if (isWord) copy.writeUInt32LE(value, at);
    else copy[at + (value % 4)] = (value >>> 8) & 0xff;
  }
  return copy;
}

const KINDS: Readonly<Record<string, Partial<RafsOptions>>> = {
  'v6 with contents and chunk table': { chunkSize: 0x1000 },
  'v6 of batches without contents': { toc: false, chunkInfoV2: true, batchSize: 0x2000, chunkSize: 0x2000 },
  'v6 without chunk table': { chunkTable: false },
  v5: { version: 5, aligned: false, chunkSize: 0x1000 },
};

describe('mutations are read or refused, never worse', () => {
  test('of a real bootstrap', async () => {
    const base = new URL('../../fixtures/nydus/', import.meta.url);
    const boot = await readFile(new URL('rafs-v6-2.2.boot', base));
    const digest = parseDigest('sha256:be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef');
    const blobs = new Map([[digest, await readFile(new URL('rafs-v6-2.2.blob', base))]]);
    const property = fc.asyncProperty(edits(boot), (changes) => survives(() => read(edited(boot, changes), blobs)));
    await fc.assert(property, { numRuns: 500 });
  });

  for (const [name, options] of Object.entries(KINDS)) {
    test(`of a bootstrap ${name}`, async () => {
      const image = rafsImage(ENTRIES, options);
      const blobs = new Map(image.blobs.map(({ descriptor, bytes }) => [descriptor.digest, bytes]));
      const version = options.version ?? 6;
      await read(image.boot, blobs, version);
      const property = fc.asyncProperty(edits(image.boot), (changes) =>
        survives(() => read(edited(image.boot, changes), blobs, version)),
      );
      await fc.assert(property, { numRuns: 500 });
      for (let length = 0; length < image.boot.byteLength; length += 997) {
        await survives(() => read(image.boot.subarray(0, length), blobs, version));
      }
    });
  }

  test('of a blob whose index nothing pins', async () => {
    const { boot, blobs } = rafsImage(ENTRIES, { toc: false, chunkInfoV2: true, batchSize: 0x2000 });
    const [blob] = blobs;
    assert.ok(blob !== undefined);
    const from = blob.written.ci.offset;
    const tail = Buffer.from(blob.bytes.subarray(from));
    const property = fc.asyncProperty(edits(tail), (changes) => {
      const bytes = Buffer.concat([blob.bytes.subarray(0, from), edited(tail, changes)]);
      return survives(() => read(boot, new Map([[blob.descriptor.digest, bytes]])));
    });
    await fc.assert(property, { numRuns: 300 });
  });
});

describe('a bootstrap that lies about sizes', () => {
  const { boot, blobs } = rafsImage(ENTRIES);
  const all = new Map(blobs.map(({ descriptor, bytes }) => [descriptor.digest, bytes]));
  const refused = async (change: (boot: Buffer) => void, says: RegExp, version = 6, from = boot): Promise<void> => {
    const copy = Buffer.from(from);
    change(copy);
    await assert.rejects(read(copy, all, version), (error: unknown) => {
      assert.ok(error instanceof ShoalError, String(error));
      assert.match(error.message, says);
      return true;
    });
  };

  test('v6: tables beyond its end, more blobs than devices', async () => {
    await refused((copy) => copy.writeBigUInt64LE(2n ** 60n, 1160), /bootstrap/);
    await refused((copy) => copy.writeUInt32LE(0xffffff00, 1168), /blob table/);
    await refused((copy) => copy.writeBigUInt64LE(2n ** 50n * 80n, 1184), /bootstrap/);
    await refused((copy) => copy.writeUInt16LE(7, 1110), /7 devices for 2 blobs/);
    await refused((copy) => copy.write('../../etc/passwd', 4096), /blob id/);
  });

  test('v6: a directory below itself, and one longer than the image', async () => {
    const rootAt = 4096 * boot.readUInt32LE(1064);
    const rootBlock = 4096 * boot.readUInt32LE(rootAt + 16);
    // its third entry, after `.` and `..`
    await refused((copy) => copy.writeBigUInt64LE(0n, rootBlock + 24), /two names/);
    await refused((copy) => copy.writeBigUInt64LE(2n ** 40n, rootAt + 8), /bootstrap/);
  });

  test('v5: children that are their own parents', async () => {
    const image = rafsImage(ENTRIES, { version: 5 });
    const rootAt = 8 * image.boot.readUInt32LE(8192);
    await refused((copy) => copy.writeUInt32LE(1, rootAt + 92), /two parents/, 5, image.boot);
    await refused((copy) => copy.writeUInt32LE(0xffffffff, rootAt + 96), /inode \d+ of/, 5, image.boot);
    await refused((copy) => copy.writeUInt32LE(0xffffffff, 56), /bootstrap/, 5, image.boot);
  });

  test('more entries than allowed', async () => {
    const image = rafsImage(ENTRIES);
    await assert.rejects(read(image.boot, all, 6, 3), { code: 'TOO_LARGE' });
  });

  test('a layer that expands without end', async () => {
    const bytes = gzipSync(Buffer.alloc(64 * 1024 * 1024));
    const descriptor = { digest: sha256(bytes), annotations: { [NYDUS.bootstrap]: 'true' } };
    const readers = [createRafsReader({ limits: { maxBootstrapBytes: 1024 * 1024 } })];
    const openBlob = async (): Promise<never> => assert.fail('nothing to open');
    await assert.rejects(
      readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal, readers, openBlob }),
      {
        code: 'TOO_LARGE',
      },
    );
  });
});

test('an LZ4 block gives what it should or is refused, and never more than was asked for', async () => {
  const content = mixed(100_000, 5);
  const coded = compress(content, 'lz4_block');
  assert.deepEqual(Buffer.from(await decodeExtent('lz4_block', coded, 100_000, { signal })), content);
  for (const length of [1, 99_999]) {
    await assert.rejects(decodeExtent('lz4_block', coded, length, { signal }), { code: 'CHUNK_CORRUPT' });
  }
  await assert.rejects(decodeExtent('lz4_block', coded, 100_001, { signal }), { code: 'CHUNK_CORRUPT' });
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), fc.integer({ min: 1, max: 70_000 }), async (bytes, length) => {
      try {
        assert.equal((await decodeExtent('lz4_block', bytes, length, { signal })).byteLength, length);
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'CHUNK_CORRUPT', String(error));
      }
    }),
    { numRuns: 500 },
  );
});
