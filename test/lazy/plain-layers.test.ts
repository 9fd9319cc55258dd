import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { systemClock } from '../../src/clock.ts';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import { decodeLayerIndex, encodeLayerIndex } from '../../src/image/layer-index/layer-index.ts';
import { createPassThreads } from '../../src/image/pass/pass-threads.ts';
import { parseReference } from '../../src/image/reference.ts';
import { createLayerOpener } from '../../src/lazy/layer-opener.ts';
import { createLocalIndexes } from '../../src/lazy/local-indexes.ts';
import { createOriginBlobs } from '../../src/lazy/origin-blobs.ts';
import { createPlainLayers, type IndexSource } from '../../src/lazy/plain-layers.ts';
import { silentLogger } from '../../src/log.ts';
import { createOriginStore } from '../../src/source/origin/origin-store.ts';
import type { RegistryClient } from '../../src/source/origin/registry-client.ts';
import { type BlobStore, openBlobStore } from '../../src/store/blob-store.ts';
import { MemoryBlob } from '../fakes/memory-blob.ts';
import { diffIdOf, passOver } from '../image/pass/pass-lab.ts';
import { tarOf } from '../image/tar/tar-lab.ts';
import { storedEdges } from '../store/store-fixture.ts';

const { signal } = new AbortController();
const TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';
const REFERENCE = parseReference('registry.example/app:1');
const content = randomBytes(3_000_000);
const blob = gzipSync(
  tarOf([
    { path: 'noise', data: content },
    { path: 'zeros', data: Buffer.alloc(2_000_000) },
  ]),
);

test('a plain layer is complete after one pass, survives the store being opened again, and leaves an index', async (t) => {
  const lab = await makeLab(t);
  const device = await lab.open(blob);
  assert.equal(device.info.format, 'tar.gz');
  assert.ok(device.presence.complete);
  assert.equal(
    lab.source.reads.reduce((sum, { length }) => sum + length, 0),
    blob.byteLength,
  );
  await device.flush();
  assert.ok(device.complete);
  assert.deepEqual(await lab.deviceBytes(device.blob), passOver(blob).device);
  await lab.reopen();
  const again = await lab.blobs().open(sha256(blob));
  assert.ok(again?.complete);
  assert.deepEqual(await lab.indexes.list(), [sha256(blob)]);
});

test('with the index, only what is read is fetched, and it is the same', async (t) => {
  const lab = await makeLab(t);
  await lab.open(blob);
  await lab.blobs().remove(sha256(blob));
  lab.source.reads.length = 0;
  const device = await lab.open(blob);
  assert.equal(device.info.why, 'index from this node');
  assert.deepEqual(lab.source.reads, []);
  const noiseEnd = Math.ceil(content.byteLength / 4096);
  const zerosEnd = noiseEnd + Math.ceil(2_000_000 / 4096);
  assert.deepEqual(await storedEdges(lab.root, device.blob), [0, noiseEnd, zerosEnd]);
  await device.fill(0, 4096, { signal });
  assert.ok(lab.source.reads.every(({ length }) => length < blob.byteLength / 2));
  await device.fill(0, device.size, { signal });
  assert.deepEqual(await lab.deviceBytes(device.blob), passOver(blob).device);
});

test('a decoded span fills the chunks around the one that was asked for', async (t) => {
  const files = Array.from({ length: 50 }, (_, at) => ({ path: `f${at}`, data: randomBytes(10_000) }));
  const many = gzipSync(tarOf([...files, { path: 'large', data: content }]));
  const lab = await makeLab(t);
  await lab.open(many);
  await lab.blobs().remove(sha256(many));
  const device = await lab.open(many);
  await device.fill(4096 * 30, 1, { signal });
  for (let tries = 0; tries < 3000 && !device.hasChunk(49); tries += 1) await systemClock.sleep(10);
  for (let row = 0; row < 50; row += 1) assert.ok(device.hasChunk(row), `chunk ${row}`);
});

test('bytes that are not those of the digest leave nothing behind', async (t) => {
  const lab = await makeLab(t);
  const wrong = Buffer.from(blob);
  wrong[wrong.byteLength - 20] = (wrong[wrong.byteLength - 20] as number) ^ 1;
  await assert.rejects(lab.open(wrong, { digest: sha256(blob) }), { code: 'INVALID_LAYER' });
  assert.deepEqual(await readdir(join(lab.root, 'blobs')), []);
  assert.deepEqual(await lab.indexes.list(), []);
});

test('a source that fails in the middle leaves nothing behind, and the next try works', async (t) => {
  const lab = await makeLab(t);
  lab.source.onRead = () => {
    throw new ShoalError('SOURCE_FAILED', 'the registry is gone');
  };
  await assert.rejects(lab.open(blob), { code: 'SOURCE_FAILED' });
  assert.deepEqual(await readdir(join(lab.root, 'blobs')), []);
  lab.source.onRead = () => {};
  assert.ok((await lab.open(blob)).presence.complete);
});

test('a layer that cannot be read by range is complete and leaves no index', async (t) => {
  const lab = await makeLab(t);
  const one = zstdCompressSync(
    tarOf([
      { path: 'zeros', data: Buffer.alloc(20_000_000) },
      { path: 'x', data: content },
    ]),
  );
  const device = await lab.open(one, { mediaType: 'application/vnd.oci.image.layer.v1.tar+zstd' });
  assert.ok(device.presence.complete);
  assert.deepEqual(await lab.indexes.list(), []);
});

test('what is no tar by its media type is not read at all', async (t) => {
  const lab = await makeLab(t);
  for (const mediaType of ['application/vnd.oci.image.layer.nydus.blob.v1', `${TYPE}+encrypted`, 'application/wasm']) {
    await assert.rejects(lab.open(blob, { mediaType }), { code: 'UNSUPPORTED_LAYER' });
  }
  assert.deepEqual(lab.source.reads, []);
});

test('an index of another layer, or damaged, from elsewhere is not used', async (t) => {
  const other = gzipSync(tarOf([{ path: 'other', data: randomBytes(100_000) }]));
  const maker = await makeLab(t);
  await maker.open(other);
  const indexOfOther = await maker.indexes.get(sha256(other));
  for (const bytes of [indexOfOther, Buffer.from('nonsense')]) {
    const lab = await makeLab(t, [{ name: 'elsewhere', find: async () => bytes }]);
    const device = await lab.open(blob);
    assert.match(device.info.why ?? '', /no index/);
    assert.ok(device.presence.complete);
  }
});

test('a layer that is something else uncompressed than its image says leaves nothing behind', async (t) => {
  const lab = await makeLab(t, [], sha256('something else'));
  await assert.rejects(lab.open(blob), { code: 'INVALID_LAYER' });
  assert.deepEqual(await readdir(join(lab.root, 'blobs')), []);
  assert.deepEqual(await lab.indexes.list(), []);
  assert.ok((await (await makeLab(t, [], diffIdOf(blob))).open(blob)).presence.complete);
});

test('an index of something else uncompressed than the image says is not used', async (t) => {
  const maker = await makeLab(t);
  await maker.open(blob);
  const index = decodeLayerIndex((await maker.indexes.get(sha256(blob))) as Uint8Array);
  const forged = encodeLayerIndex({ ...index, diffId: sha256('something else') });
  const lab = await makeLab(t, [{ name: 'elsewhere', find: async () => forged }], diffIdOf(blob));
  assert.match((await lab.open(blob)).info.why ?? '', /no index/);
});

/** A store, a source in memory, and an opener over both. */
async function makeLab(t: TestContext, others: readonly IndexSource[] = [], diffId?: Digest) {
  const root = await mkdtemp(join(tmpdir(), 'shoal-plain-'));
  const source = new MemoryBlob(new Uint8Array(0));
  const threads = createPassThreads();
  let blobs: BlobStore;
  let served = source;
  const registry = {
    blob: async (_repository: unknown, { digest }: { digest: Digest }) => ({
      digest,
      size: served.size,
      read: served.read.bind(served),
    }),
  } as unknown as RegistryClient;
  const openStore = async (): Promise<void> => {
    const store = await openBlobStore(
      { log: silentLogger, clock: systemClock },
      { root, db: { getMany: async (keys) => keys.map(() => undefined), batch: async () => {} } },
    );
    blobs = store;
    store.connect(
      createOriginStore({
        blobs: createOriginBlobs({ blobs: store, registry }),
        onExtent: async ({ blob: digest, index }, decoded) =>
          await store.opened(digest)?.offerExtent(index, decoded, 'origin'),
      }),
    );
  };
  await openStore();
  const indexes = createLocalIndexes({ log: silentLogger }, { directory: join(root, 'indexes'), maxBytes: 1 << 30 });
  t.after(async () => {
    await threads.close();
    await blobs.close();
    await rm(root, { recursive: true });
  });
  return {
    root,
    source,
    indexes,
    blobs: () => blobs,
    async reopen() {
      await blobs.close();
      await openStore();
    },
    async open(bytes: Uint8Array, change: { digest?: Digest; mediaType?: string } = {}) {
      const digest = change.digest ?? sha256(bytes);
      // What is read is the reader's to give away, so it must be a copy.
      const memory = Object.assign(new MemoryBlob(bytes, digest), { reads: source.reads, onRead: source.onRead });
      const read: MemoryBlob['read'] = async (...args) =>
        Uint8Array.from(await MemoryBlob.prototype.read.apply(memory, args));
      served = Object.assign(memory, { read });
      const opener = createLayerOpener({
        registry: { openBlob: async () => served },
        blobs,
        readers: [],
        plain: createPlainLayers(
          { blobs, threads, indexes, others, diffIds: { of: async () => diffId }, log: silentLogger },
          { wholeBytesMax: 1000, maxEntries: 10_000 },
        ),
        log: silentLogger,
      });
      const layer = { digest, size: bytes.byteLength, mediaType: change.mediaType ?? TYPE, annotations: {} };
      return await opener.open(REFERENCE, layer, { signal });
    },
    async deviceBytes(digest: Digest): Promise<Buffer> {
      const device = await blobs.open(digest);
      assert.ok(device !== undefined);
      const bytes = Buffer.alloc(device.size);
      for (let row = 0; row < device.table.count; row += 1) {
        bytes.set((await device.readChunk(row, { signal })).bytes, device.table.row(row).deviceOffset);
      }
      return bytes;
    },
  };
}
