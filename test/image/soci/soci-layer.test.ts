import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { deflateRawSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { spanChunk } from '../../../src/core/chunk.ts';
import type { ChunkTable } from '../../../src/core/chunk-table.ts';
import { decodeChunkTable, encodeChunkTable } from '../../../src/core/chunk-table-codec.ts';
import { sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { DirNode, TreeNode } from '../../../src/image/layer-tree.ts';
import { readWindow } from '../../../src/image/pass/windows.ts';
import { readSociLayer, type SociLayer } from '../../../src/image/soci/soci-layer.ts';
import { verifySpan } from '../../../src/store/verify-chunk.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { type ZtocOptions, ztocOf } from '../../fakes/soci/ztoc-writer.ts';
import { fileSha256, passOver } from '../pass/pass-lab.ts';
import { tarOf } from '../tar/tar-lab.ts';

const signal = AbortSignal.timeout(300_000);
const SPAN_BYTES = 100_000;

const tar = tarOf([
  { path: 'etc/', type: '5', mode: 0o1777 },
  { path: 'etc/noise', data: randomBytes(1_300_000), mode: 0o4755, mtime: 1_234_567_890 },
  { path: 'etc/text', data: Buffer.from('all work and no play\n'.repeat(40_000)) },
  { path: 'etc/empty', data: Buffer.alloc(0) },
  { path: 'etc/\xff\xfe', data: Buffer.from('not UTF-8'), pax: { mtime: '-1.25' } },
  { path: 'link', type: '1', linkName: 'etc/text' },
  { path: 'sym', type: '2', linkName: '/etc/text' },
  { path: 'null', type: '3', dev: [1, 3] },
  { path: 'fifo', type: '6' },
  {
    path: 'capable',
    data: Buffer.from('x'),
    pax: { 'SCHILY.xattr.security.capability': Buffer.from('01000002ff00', 'hex') },
  },
  { path: 'usr/.wh.gone', data: Buffer.alloc(0) },
  { path: 'usr/.wh..wh..opq', data: Buffer.alloc(0) },
  { path: 'etc/text', data: randomBytes(5000) },
  ...Array.from({ length: 200 }, (_, at) => ({ path: `many/f${at}`, data: randomBytes((at * 577) % 9000) })),
]);

const LAYERS: readonly (readonly [string, Uint8Array])[] = [
  ['gzip -6', gzipSync(tar)],
  ['gzip -9', gzipSync(tar, { level: 9 })],
  ['stored blocks', gzipSync(tar, { level: 0 })],
  ['several members', Buffer.concat([gzipSync(tar.subarray(0, 700_000)), gzipSync(tar.subarray(700_000))])],
  ['a header with a name', named(tar)],
  ['plain tar', tar],
];

for (const [name, layer] of LAYERS) {
  test(`a ztoc of ${name} gives the tree and the content that a pass gives`, async () => {
    const read = await readLayer(layer);
    const passed = passOver(layer);
    assert.deepEqual(rowsOf(read.tree.root, await decoded(layer, read)), rowsOf(passed.tree.root, passed.device));
  });
}

test('a ztoc of the first version starts behind a gzip header of ten bytes', async () => {
  const layer = gzipSync(tar);
  const read = await readLayer(layer, { firstVersion: true });
  const passed = passOver(layer);
  assert.deepEqual(rowsOf(read.tree.root, await decoded(layer, read)), rowsOf(passed.tree.root, passed.device));
  await assert.rejects(readLayer(named(tar), { firstVersion: true }), { code: 'UNSUPPORTED_LAYER' });
});

test('what follows the flatbuffer, as newer tools have it, is not looked at', async () => {
  const layer = gzipSync(tar);
  const bytes = Buffer.concat([ztocOf(layer, { spanBytes: SPAN_BYTES }), Buffer.from('---SOCI-PREFETCH---[]')]);
  assert.ok((await readZtoc(layer, bytes)).chunks.count > 0);
});

test('the table survives being stored, names included, and every extent keeps its digest', async () => {
  const { chunks } = await readLayer(gzipSync(tar));
  const again = decodeChunkTable(encodeChunkTable(chunks));
  assert.deepEqual(again.columns.extents, chunks.columns.extents);
  assert.ok(again.columns.extents.every(({ digest }) => digest?.byteLength === 32));
  assert.equal(again.row(7).digest, chunks.row(7).digest);
  assert.match(again.row(7).digest, /^span:/);
  assert.equal(new Set(Array.from({ length: again.count }, (_, row) => again.row(row).digest)).size, again.count);
});

test('the same layer with another ztoc has other names', async () => {
  const layer = gzipSync(tar);
  const [one, two] = [await readLayer(layer), await readLayer(layer, { root: { 1: { string: 'another tool' } } })];
  assert.notEqual(one.chunks.row(0).digest, two.chunks.row(0).digest);
});

const REFUSED: readonly (readonly [string, ZtocOptions, string])[] = [
  ['another size of the layer', { root: { 2: { int64: 12_345 } } }, 'INVALID_LAYER'],
  ['no size', { root: { 3: { int64: 0 } } }, 'INVALID_LAYER'],
  ['a negative size', { root: { 3: { int64: -1 } } }, 'INVALID_LAYER'],
  ['an unknown compression', { algorithm: 3 }, 'UNSUPPORTED_LAYER'],
  ['checkpoints of another compression', { algorithm: 2 }, 'INVALID_LAYER'],
  ['a digest too few', { digests: (digests) => digests.slice(1) }, 'INVALID_LAYER'],
  ['a digest that is none', { digests: (digests) => digests.map(() => 'sha256:00') }, 'INVALID_DIGEST'],
  [
    'a blake3 digest',
    { digests: (digests) => digests.map((each) => each.replace('sha256', 'blake3')) },
    'INVALID_LAYER',
  ],
  ['checkpoints cut short', { checkpoints: (blob) => blob.subarray(0, -1) }, 'INVALID_LAYER'],
  ['no checkpoints', { checkpoints: () => Buffer.alloc(0) }, 'INVALID_LAYER'],
  ['a checkpoint past the end', { checkpoints: (blob) => setInt64(blob, 12 + 32785, 1e12) }, 'INVALID_LAYER'],
  ['a checkpoint before the one before', { checkpoints: (blob) => setInt64(blob, 12 + 32785, 3) }, 'INVALID_LAYER'],
  ['output that goes back', { checkpoints: (blob) => setInt64(blob, 12 + 2 * 32785 + 8, 3) }, 'INVALID_LAYER'],
  ['a first checkpoint in the middle', { checkpoints: (blob) => setInt64(blob, 12 + 8, 3) }, 'INVALID_LAYER'],
  ['nine bits', { checkpoints: (blob) => setByte(blob, 12 + 32785 + 16, 9) }, 'INVALID_LAYER'],
  ['an unknown type', change(1, { string: 'door' }), 'UNSUPPORTED_LAYER'],
  [
    'a sparse file',
    change(13, { tables: [{ 0: { string: 'GNU.sparse.major' }, 1: { string: '1' } }] }),
    'UNSUPPORTED_LAYER',
  ],
  ['a name with ..', change(0, { string: 'a/../../b' }), 'INVALID_LAYER'],
  ['an empty name', change(0, { string: '' }), 'INVALID_LAYER'],
  ['a name with NUL', change(0, { string: 'a\0b' }), 'INVALID_LAYER'],
  ['a long name', change(0, { string: 'n'.repeat(256) }), 'INVALID_LAYER'],
  ['a negative size of a file', change(3, { int64: -5 }), 'INVALID_LAYER'],
  ['a file of 2^53 bytes', change(3, { int64: Number.MAX_SAFE_INTEGER }), 'INVALID_LAYER'],
  ['a file that overlaps another', change(3, { int64: 1_000_000 }), 'INVALID_LAYER'],
  ['data before the tar', change(2, { int64: -512 }), 'INVALID_LAYER'],
  ['a time that is none', change(10, { string: 'yesterday' }), 'INVALID_LAYER'],
  ['no time', change(10, { string: '' }), 'INVALID_LAYER'],
];

for (const [what, options, code] of REFUSED) {
  test(`a ztoc with ${what} is refused`, async () => {
    await assert.rejects(readLayer(gzipSync(tar), options), { code });
  });
}

test('a layer with more entries than allowed is refused', async () => {
  const layer = gzipSync(tar);
  await assert.rejects(readZtoc(layer, ztocOf(layer), 50), { code: 'TOO_LARGE' });
});

test('a ztoc that claims a petabyte is refused in a moment', async () => {
  const size = 2 ** 50;
  const options: ZtocOptions = {
    root: { 3: { int64: size } },
    entries: (all) => [{ ...all[1], 3: { int64: size / 2 } }],
  };
  const startedMs = performance.now();
  await assert.rejects(readLayer(gzipSync(tar), options), { code: 'INVALID_CHUNK_TABLE' });
  assert.ok(performance.now() - startedMs < 2_000);
});

test('any change of a ztoc is refused with a code or read, in bounded time', async () => {
  const layer = gzipSync(
    tarOf([
      { path: 'a', data: randomBytes(50_000) },
      { path: 'b', data: Buffer.from('b'), pax: { 'SCHILY.xattr.user.x': 'y' } },
      { path: 'c', type: '1', linkName: 'a' },
    ]),
  );
  const good = ztocOf(layer);
  assert.equal((await readZtoc(layer, good)).tree.root.children.size, 3);
  // All but the window.
  const [atStart, atEnd] = [1200, 700];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(10_000), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      async (changes, nearEnd) => {
        const bytes = Buffer.from(good);
        for (const [at, value] of changes) bytes[nearEnd ? bytes.byteLength - 1 - (at % atEnd) : at % atStart] = value;
        await refusedOrRead(layer, bytes);
      },
    ),
    { numRuns: 3000 },
  );
});

test('anything else in place of a ztoc is refused with a code', async () => {
  const layer = gzipSync(tarOf([{ path: 'a', data: Buffer.from('a') }]));
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), (bytes) => refusedOrRead(layer, bytes)),
    { numRuns: 1000 },
  );
});

test('tables that share what they hold cannot unfold to much more than was sent', async () => {
  // A vector of 50,000 references to one table with a name of 200,000 bytes.
  const shared = flatShared(50_000, 200_000);
  const startedMs = performance.now();
  await assert.rejects(readZtoc(gzipSync(tar), shared), { code: 'INVALID_LAYER' });
  assert.ok(performance.now() - startedMs < 2_000);
});

async function refusedOrRead(layer: Uint8Array, bytes: Uint8Array): Promise<void> {
  const startedMs = performance.now();
  try {
    await readZtoc(layer, bytes, 1000);
  } catch (error) {
    assert.ok(error instanceof ShoalError, String((error as Error).stack));
  }
  assert.ok(performance.now() - startedMs < 1_000);
}

function readLayer(layer: Uint8Array, options: ZtocOptions = {}): Promise<SociLayer> {
  return readZtoc(layer, ztocOf(layer, { spanBytes: SPAN_BYTES, ...options }));
}

function readZtoc(layer: Uint8Array, bytes: Uint8Array, maxEntries = 10_000): Promise<SociLayer> {
  return readSociLayer(new MemoryBlob(layer), { digest: sha256(bytes), bytes }, { signal, maxEntries });
}

/** The device when every chunk is fetched by its extent, whose digest is checked. */
async function decoded(layer: Uint8Array, { chunks, windows }: SociLayer): Promise<Buffer> {
  const device = Buffer.alloc(chunks.deviceSize);
  for (let row = 0; row < chunks.count; row += 1) {
    device.set((await fetched(layer, chunks, windows, row)).bytes, chunks.row(row).deviceOffset);
  }
  return device;
}

async function fetched(layer: Uint8Array, chunks: ChunkTable, windows: Uint8Array | undefined, row: number) {
  const chunk = chunks.row(row);
  const { offset, length, codec, decodedLength, checkpoint, digest } = chunks.extent(chunk.extent);
  assert.ok(digest !== undefined);
  const coded = layer.subarray(offset, offset + length);
  await verifySpan(coded, digest);
  const window =
    checkpoint?.window === undefined
      ? undefined
      : await readWindow(checkpoint.window, async (at, count) => (windows as Uint8Array).subarray(at, at + count));
  const start = { bits: checkpoint?.bits ?? 0, window };
  const bytes = await decodeExtent(codec, coded, decodedLength, { signal, start });
  return spanChunk(chunk, bytes.subarray(chunk.innerOffset, chunk.innerOffset + chunk.length));
}

/** Every entry with all that is known of it; hard links by the inode they share. */
function rowsOf(root: DirNode, device: Uint8Array): string[] {
  const inodes = new Map<TreeNode, number>();
  const rows: string[] = [];
  const walk = (path: string, node: TreeNode): void => {
    const { children, extents, ...rest } = { children: undefined, extents: undefined, ...node };
    inodes.set(node, inodes.get(node) ?? inodes.size);
    const content = node.kind === 'file' ? fileSha256(node, [device]) : '';
    const xattrs =
      'xattrs' in node
        ? [...(node.xattrs ?? [])].map(([key, value]) => `${key}=${Buffer.from(value).toString('hex')}`)
        : [];
    rows.push(JSON.stringify([path, { ...rest, xattrs }, inodes.get(node), content]));
    void extents;
    for (const [name, child] of children ?? []) walk(`${path}/${name}`, child as TreeNode);
  };
  walk('', root);
  return rows.sort();
}

/** A gzip stream whose header has a name. */
function named(bytes: Uint8Array): Buffer {
  const header = Buffer.from([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 255, ...Buffer.from('layer.tar\0')]);
  const plain = gzipSync(bytes);
  return Buffer.concat([header, deflateRawSync(bytes), plain.subarray(-8)]);
}

/** Another value for a field of the file `etc/text`, the third entry. */
function change(field: number, value: object): ZtocOptions {
  return { entries: (all) => all.map((each, at) => (at === 2 ? { ...each, [field]: value as never } : each)) };
}

function setInt64(blob: Buffer, at: number, value: number): Buffer {
  const changed = Buffer.from(blob);
  changed.writeBigInt64LE(BigInt(value), at);
  return changed;
}

function setByte(blob: Buffer, at: number, value: number): Buffer {
  const changed = Buffer.from(blob);
  changed[at] = value;
  return changed;
}

/** A ztoc, written by hand, whose `count` entries are one and the same table with a name of `nameBytes`. */
function flatShared(count: number, nameBytes: number): Buffer {
  const layer = gzipSync(tar);
  const [entry] = [{ 0: { string: 'n'.repeat(nameBytes) }, 1: { string: 'reg' } }];
  const bytes = ztocOf(layer, { entries: () => Array.from({ length: count }, (_, at) => (at === 0 ? entry : {})) });
  // All references of the vector of entries lead to where the first one leads.
  const toc = follow(bytes, field(bytes, bytes.readUInt32LE(0), 4));
  const vector = follow(bytes, field(bytes, toc, 0));
  assert.equal(bytes.readUInt32LE(vector), count);
  const target = follow(bytes, vector + 4);
  for (let at = vector + 4; at < vector + 4 + 4 * count; at += 4) {
    // References only lead forward: the shared table must lie behind all of them.
    assert.ok(target > at);
    bytes.writeUInt32LE(target - at, at);
  }
  return bytes;
}

function field(bytes: Buffer, table: number, number: number): number {
  const vtable = table - bytes.readInt32LE(table);
  return table + bytes.readUInt16LE(vtable + 4 + 2 * number);
}

function follow(bytes: Buffer, at: number): number {
  return at + bytes.readUInt32LE(at);
}
