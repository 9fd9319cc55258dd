import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { constants, createGzip, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { sha256 } from '../../../src/core/digest.ts';
import { mergeLayers } from '../../../src/erofs/merge.ts';
import { ShoalError } from '../../../src/errors.ts';
import { LayerPass } from '../../../src/image/pass/layer-pass.ts';
import { fixtureLayers } from '../../fakes/oci-layout.ts';
import { expectedRows, type TreeRow, treeRows } from '../../suites/tree-rows.ts';
import { headerOf, tarOf } from '../tar/tar-lab.ts';
import { diffIdOf, fileSha256, type Passed, passOver, refetched } from './pass-lab.ts';

const PIECES: readonly (readonly number[])[] = [[4 * 1024 * 1024], [7, 4096, 1, 100_000], [511]];

describe('a pass over plain tar.gz layers', () => {
  test('gives the tree that containerd unpacks, however the bytes come', async () => {
    const layers = await fixtureLayers('small/oci-targz');
    const expected = (await expectedRows('small/tree.jsonl')).map(normalise);
    for (const pieces of PIECES) {
      const passed = layers.map(({ bytes }) => passOver(bytes, { pieces }));
      const merged = mergeLayers(
        passed.map(({ tree }, at) => ({ tree, devices: [at] })),
        { bottom: true },
      );
      const devices = passed.map(({ device }) => device);
      const rows = await treeRows(merged, async (file) => fileSha256(file, devices));
      assert.deepEqual(rows.map(normalise), expected);
    }
  });

  test('gives chunks that are the same bytes when each is fetched by range', async () => {
    for (const { bytes } of await fixtureLayers('small/oci-targz')) await isRefetched(bytes, 'tar.gz');
  });

  test('gives the DiffID', async () => {
    for (const { bytes } of await fixtureLayers('small/oci-targz'))
      assert.equal(passOver(bytes).diffId, diffIdOf(bytes));
  });

  test('gives the same chunks for the same file in any layer', async () => {
    const content = randomBytes(3_000_000);
    const one = passOver(gzipSync(tarOf([{ path: 'a', data: content }])));
    const other = passOver(
      gzipSync(
        tarOf([
          { path: 'x', data: randomBytes(1234) },
          { path: 'b', data: content },
        ]),
      ),
    );
    const digests = ({ chunks }: Passed) => Array.from({ length: chunks.count }, (_, row) => chunks.row(row).digest);
    assert.deepEqual(digests(other).slice(1), digests(one));
  });

  test('gives spans that hold hardly anything of one another', () => {
    // Every byte of some 5 bits: blocks of about 30 KiB.
    const data = Buffer.from(randomBytes(12 * 1024 * 1024).map((byte) => byte & 31));
    const small = Array.from({ length: 40 }, (_, index) => ({
      path: `s${index}`,
      data: data.subarray(0, 3 ** (index % 12)),
    }));
    const blob = gzipSync(tarOf([...small, { path: 'a', data }, ...small]));
    const { chunks } = passOver(blob);
    const { extents } = chunks.columns;
    const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
    assert.ok(sum(extents.map(({ decodedLength }) => decodedLength)) < 1.1 * chunks.dataBytes);
    assert.ok(sum(extents.map(({ length }) => length)) < 1.1 * blob.byteLength);
    assert.ok(extents.every(({ decodedLength }) => decodedLength < 1.6 * 1024 * 1024));
    assert.ok(extents.length <= chunks.dataBytes / (896 * 1024) + 1);
  });

  test('refuses bytes that are not those of the digest', () => {
    const blob = gzipSync(tarOf([{ path: 'a', data: randomBytes(100) }]));
    assert.throws(() => passOver(blob, { digest: sha256('other') }), { code: 'INVALID_LAYER' });
  });
});

describe('a plain tar', () => {
  test('is passed over and fetched by range without decoding', async () => {
    const tar = tarOf([
      { path: 'dir/', type: '5' },
      { path: 'dir/a', data: randomBytes(1_700_000) },
      { path: 'b', data: Buffer.from('short') },
    ]);
    const passed = await isRefetched(tar, 'tar');
    assert.ok(passed.chunks.columns.extents.every(({ codec }) => codec === 'none'));
    assert.equal(passed.diffId, sha256(tar));
  });

  test('without a byte is an empty layer', () => {
    const { tree, chunks } = passOver(new Uint8Array(0));
    assert.deepEqual([tree.root.children.size, chunks.count], [0, 0]);
  });
});

/** Text that compresses, with files of many sizes. */
function sampleTar(totalBytes: number): Buffer {
  const words = Array.from({ length: 4000 }, () => randomBytes(6).toString('base64url'));
  const files: { path: string; data: Buffer }[] = [];
  for (let bytes = 0, index = 0; bytes < totalBytes; index += 1) {
    const count = Math.floor(2 ** (4 + (index % 17)));
    const data = Buffer.from(Array.from({ length: count }, (_, at) => words[(at * 7919 + index) % 4000]).join(' '));
    files.push({ path: `files/${index}`, data });
    bytes += data.byteLength;
  }
  return tarOf(files);
}

describe('gzip as it comes', () => {
  const tar = sampleTar(9_000_000);
  const cases: Record<string, () => Buffer | Promise<Buffer>> = {
    'at level 1': () => gzipSync(tar, { level: 1 }),
    'at level 6': () => gzipSync(tar),
    'at level 9': () => gzipSync(tar, { level: 9 }),
    'in stored blocks': () => gzipSync(tar, { level: 0 }),
    'in blocks of fixed codes': () => gzipSync(tar, { strategy: constants.Z_FIXED }),
    'of Huffman codes only': () => gzipSync(tar, { strategy: constants.Z_HUFFMAN_ONLY }),
    'with sync flushes': () => flushed(tar, constants.Z_SYNC_FLUSH),
    'with full flushes, as pgzip writes': () => flushed(tar, constants.Z_FULL_FLUSH),
    'in many small members, as bgzip writes': () => members(tar, 65_000),
    'in members of 3 MB': () => members(tar, 3_000_000),
    'with empty members between and at both ends': () =>
      Buffer.concat([
        EMPTY,
        members(tar.subarray(0, 100_000), 30_000),
        EMPTY,
        EMPTY,
        gzipSync(tar.subarray(100_000)),
        EMPTY,
      ]),
    'with garbage behind': () => Buffer.concat([gzipSync(tar), Buffer.from('no gzip'), randomBytes(5000)]),
    'with zeros behind': () => Buffer.concat([gzipSync(tar), Buffer.alloc(10_000)]),
    'with one byte behind': () => Buffer.concat([gzipSync(tar), Buffer.of(0x1f)]),
    'with a name, a comment and a header checksum': () => withHeader(gzipSync(tar)),
  };
  for (const [name, make] of Object.entries(cases)) {
    test(`${name} gives every chunk by range`, async () => {
      const blob = await make();
      const passed = await isRefetched(blob, 'tar.gz');
      const whole = passOver(tar);
      assert.equal(Buffer.compare(passed.device, whole.device), 0);
      assert.ok(passed.chunks.extentCount > 2, `${passed.chunks.extentCount} extents`);
      for (const pieces of [[1000], [1, 300_000]]) {
        assert.equal(Buffer.compare(passOver(blob, { pieces }).device, whole.device), 0);
      }
    });
  }

  test('real samples from nydus decode', async () => {
    for (const name of ['zran-two-streams', 'zran-single-stream', 'zran-zero-file']) {
      const blob = readFileSync(new URL(`../../fixtures/gzip/${name}.tar.gz`, import.meta.url));
      const passed = await isRefetched(blob, 'tar.gz');
      assert.equal(passed.diffId, sha256(gunzipSync(blob)));
    }
  });

  test('damaged, it is refused, whatever the damage', () => {
    const blob = gzipSync(tar.subarray(0, 200_704));
    const cut = [0.1, 0.5, 0.9].map((share) => blob.subarray(0, Math.floor(blob.byteLength * share)));
    const trailer = Buffer.from(blob);
    trailer[blob.byteLength - 6] = (trailer[blob.byteLength - 6] as number) ^ 1;
    for (const bad of [...cut, blob.subarray(0, -1), blob.subarray(0, 12), trailer]) {
      assert.throws(() => passOver(bad), { code: 'INVALID_LAYER' });
    }
  });
});

test('damaged streams give an error of ours or a layer whose chunks can be fetched, in bounded time', async () => {
  const tar = sampleTar(400_000);
  const blobs = [gzipSync(tar), gzipSync(tar, { level: 0 }), members(tar, 50_000), zstdCompressSync(tar), tar];
  const edits = fc.array(fc.tuple(fc.nat(1 << 20), fc.nat(255)), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(
      fc.nat(blobs.length - 1),
      edits,
      fc.integer({ min: 1, max: 1 << 20 }),
      async (which, changes, cut) => {
        const blob = Buffer.from((blobs[which] as Buffer).subarray(0, cut));
        for (const [at, byte] of changes) if (at < blob.byteLength) blob[at] = byte;
        let passed: Passed;
        try {
          passed = passOver(blob);
        } catch (error) {
          assert.ok(error instanceof ShoalError, String(error));
          return;
        }
        assert.equal(Buffer.compare(await refetched(blob, passed), passed.device), 0);
      },
    ),
    { numRuns: 200 },
  );
});

test('a stream that expands without end costs its output, not memory', () => {
  const bomb = gzipSync(Buffer.concat([headerOf({ path: 'zeros' }, 1 << 26), Buffer.alloc(1 << 26)]));
  const before = process.memoryUsage.rss();
  const pass = new LayerPass({ output: () => {} }, { digest: sha256(bomb) });
  const piece = Buffer.allocUnsafeSlow(bomb.byteLength);
  bomb.copy(piece);
  pass.write(piece);
  const { chunks } = pass.finish();
  pass.close();
  assert.equal(chunks.dataBytes, 1 << 26);
  assert.ok(process.memoryUsage.rss() - before < 64 << 20);
});

describe('zstd as it comes', () => {
  const tar = sampleTar(9_000_000);
  const frames = (length: number): Buffer => {
    const parts: Buffer[] = [];
    for (let at = 0; at < tar.byteLength; at += length) parts.push(zstdCompressSync(tar.subarray(at, at + length)));
    return Buffer.concat(parts);
  };
  const skippable = Buffer.concat([Buffer.of(0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0), Buffer.from('abc')]);

  test('in frames gives every chunk by range', async () => {
    for (const length of [20_000, 700_000, 5_000_000]) {
      const passed = await isRefetched(frames(length), 'tar.zst');
      assert.ok(passed.chunks.extentCount > 1);
      assert.equal(passed.diffId, sha256(tar));
    }
  });

  test('with skippable and empty frames gives every chunk by range', async () => {
    const empty = zstdCompressSync(Buffer.alloc(0));
    const blob = Buffer.concat([skippable, empty, skippable, frames(1_000_000), empty, skippable]);
    const passed = await isRefetched(blob, 'tar.zst');
    for (const pieces of [[1000], [1, 300_000]]) {
      assert.equal(Buffer.compare(passOver(blob, { pieces }).device, passed.device), 0);
    }
  });

  test('of one frame longer than an extent can only be had whole', () => {
    const large = tarOf([
      { path: 'zeros', data: Buffer.alloc(70 * 1024 * 1024) },
      { path: 'x', data: randomBytes(10) },
    ]);
    const { chunks } = passOver(zstdCompressSync(large));
    assert.equal(chunks.extent(chunks.row(chunks.count - 1).extent).codec, 'stream');
  });

  test('damaged or cut short, it is refused', () => {
    const blob = zstdCompressSync(tar.subarray(0, 200_704));
    for (const bad of [blob.subarray(0, -1), blob.subarray(0, 1000), Buffer.concat([blob, Buffer.from('garbage!')])]) {
      assert.throws(() => passOver(bad), { code: 'INVALID_LAYER' });
    }
  });
});

const EMPTY = gzipSync(Buffer.alloc(0));

function members(bytes: Uint8Array, length: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < bytes.byteLength; at += length) parts.push(gzipSync(bytes.subarray(at, at + length)));
  return Buffer.concat(parts);
}

async function flushed(bytes: Uint8Array, flush: number): Promise<Buffer> {
  const gzip = createGzip();
  const parts: Buffer[] = [];
  gzip.on('data', (part: Buffer) => parts.push(part));
  const ended = new Promise((resolve) => gzip.once('end', resolve));
  for (let at = 0; at < bytes.byteLength; at += 250_000) {
    await new Promise<void>((resolve) => gzip.write(bytes.subarray(at, at + 250_000), () => resolve()));
    await new Promise<void>((resolve) => gzip.flush(flush, () => resolve()));
  }
  gzip.end();
  await ended;
  return Buffer.concat(parts);
}

function withHeader(blob: Buffer): Buffer {
  const header = Buffer.concat([Buffer.from(blob.subarray(0, 10)), Buffer.from('layer.tar\0made by hand\0')]);
  header[3] = 0x08 | 0x10;
  return Buffer.concat([header, blob.subarray(10)]);
}

/** The chunks fetched by range make the device that the pass wrote. */
async function isRefetched(blob: Uint8Array, packing: string): Promise<Passed> {
  const passed = passOver(blob);
  assert.equal(passed.packing, packing);
  assert.equal(passed.device.byteLength, passed.chunks.deviceSize);
  assert.equal(Buffer.compare(await refetched(blob, passed), passed.device), 0);
  return passed;
}

/** The mtime of / is that of the unpacking. */
function normalise(row: TreeRow): TreeRow {
  return row.path === '/' ? { ...row, mtimeNs: '' } : row;
}
