import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { systemClock } from '../../src/clock.ts';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import { decodeExtent } from '../../src/image/codec.ts';
import type { FileNode } from '../../src/image/layer-tree.ts';
import type { ImageManifest } from '../../src/image/manifest.ts';
import { parseReference } from '../../src/image/reference.ts';
import { decodeTree } from '../../src/image/tree-codec.ts';
import { createOriginBlobs } from '../../src/lazy/origin-blobs.ts';
import { createSociLayers } from '../../src/lazy/soci-layers.ts';
import { silentLogger } from '../../src/log.ts';
import { createOriginStore } from '../../src/source/origin/origin-store.ts';
import type { RegistryClient } from '../../src/source/origin/registry-client.ts';
import { createHeldChunks } from '../../src/source/peer/data/held-chunks.ts';
import { type BlobStore, openBlobStore } from '../../src/store/blob-store.ts';
import { MemoryBlob } from '../fakes/memory-blob.ts';
import { type ZtocOptions, ztocOf } from '../fakes/soci/ztoc-writer.ts';
import { fileSha256 } from '../image/pass/pass-lab.ts';
import { tarOf } from '../image/tar/tar-lab.ts';
import { storedEdges } from '../store/store-fixture.ts';

const { signal } = new AbortController();
const REFERENCE = parseReference('registry.example/app:1');
const SUBJECT = sha256('the image');
const content = randomBytes(3_000_000);
const words = Buffer.from('a word, another word and one more\n'.repeat(20_000));
const layer = gzipSync(
  tarOf([
    { path: 'noise', data: content },
    { path: 'words', data: words },
  ]),
);
const SPAN_BYTES = 400_000;

test('what is read of a layer comes out of its spans, and is the same after a restart', async (t) => {
  const lab = await makeLab(t);
  const device = await lab.open();
  assert.ok(device !== undefined);
  assert.deepEqual([device.info.format, device.info.why], ['soci', 'SOCI index that the image names']);
  assert.ok(!device.presence.complete);
  assert.deepEqual(await storedEdges(lab.root, device.blob), [0, Math.ceil(content.byteLength / BLOCK_BYTES)]);
  await device.fill(1_000_000, 4096, { signal });
  const fetched = lab.reads.reduce((sum, { length }) => sum + length, 0);
  assert.ok(fetched < layer.byteLength / 3, `${fetched} bytes`);
  await device.fill(0, device.size, { signal });
  await lab.assertFiles();
  await device.flush();
  await lab.reopen();
  const again = await lab.blobs().open(sha256(layer));
  assert.ok(again?.complete);
  assert.deepEqual(await again.verifyRange(0, again.size, { signal }), { checked: 0, dropped: 0 });
  await lab.assertFiles();
});

test('a span with another digest is not even decoded, asked for twice, and its chunks stay absent', async (t) => {
  const lab = await makeLab(t);
  const device = await lab.open();
  assert.ok(device !== undefined);
  const { extent } = device.table.row(2);
  const { offset, length } = device.table.extent(extent);
  lab.change = (at, bytes) => {
    const where = offset + Math.floor(length / 2) - at;
    if (where >= 0 && where < bytes.byteLength) bytes[where] = (bytes[where] as number) ^ 1;
  };
  // A block that no other chunk lies in, or that one's span would be decoded.
  const own = device.table.ownBlocksOf(2);
  assert.ok(own.first < own.end);
  await assert.rejects(device.fill(own.first * BLOCK_BYTES, 1, { signal }), { code: 'CHUNK_CORRUPT' });
  assert.equal(lab.decoded(), 0);
  assert.equal(lab.reads.length, 2);
  assert.ok(!device.hasChunk(2));
  const last = device.table.row(device.table.count - 1);
  assert.notEqual(last.extent, extent);
  await device.fill(last.deviceOffset, 1, { signal });
  lab.change = () => {};
  await device.fill(0, device.size, { signal });
  await lab.assertFiles();
});

test('chunks that only a span vouches for are neither announced nor given away', async (t) => {
  const lab = await makeLab(t);
  const device = await lab.open();
  await device?.fill(0, device.size, { signal });
  await device?.flush();
  assert.equal(device?.complete, true);
  assert.equal(lab.held(), 0);
  const heldChunks = createHeldChunks({ blobs: lab.blobs(), shareable: () => true });
  assert.equal(heldChunks.haveMap(sha256(layer)), undefined);
  for await (const digests of heldChunks.all()) assert.deepEqual(digests, []);
});

test('an index that only refers to the image is asked for where referrers are trusted, and only there', async (t) => {
  const trusting = await makeLab(t, { version: 1, trustReferrers: true });
  assert.equal((await trusting.open())?.info.why, 'SOCI index from the registry');
  const careful = await makeLab(t, { version: 1 });
  assert.equal(await careful.open(), undefined);
  assert.deepEqual(careful.asked, []);
});

test('an index about another image, of the other version or with other bytes is not used', async (t) => {
  for (const change of [{ subject: sha256('another') }, { lies: true }, { ztocLies: true }, { versionWritten: 2 }]) {
    const lab = await makeLab(t, { version: 1, trustReferrers: true, ...change });
    assert.equal(await lab.open(), undefined, JSON.stringify(change));
  }
  const lab = await makeLab(t, { versionWritten: 1 });
  assert.equal(await lab.open(), undefined);
});

test('an artifact manifest, as first drafts of the OCI spec had it, is understood', async (t) => {
  const lab = await makeLab(t, { version: 1, trustReferrers: true, artifactManifest: true });
  assert.equal((await lab.open())?.info.format, 'soci');
});

test('a layer without a ztoc, or too small to be worth it, is left to others', async (t) => {
  assert.equal(await (await makeLab(t, { layers: [sha256('another')] })).open(), undefined);
  assert.equal(await (await makeLab(t, { wholeBytesMax: layer.byteLength })).open(), undefined);
});

interface LabInit extends ZtocOptions {
  readonly version?: 1 | 2;
  readonly versionWritten?: number;
  readonly trustReferrers?: boolean;
  readonly subject?: Digest;
  /** The registry sends other bytes for the index, or for the ztoc. */
  readonly lies?: boolean;
  readonly ztocLies?: boolean;
  readonly artifactManifest?: boolean;
  readonly layers?: readonly Digest[];
  readonly wholeBytesMax?: number;
}

/** A store, a registry in memory with the layer and its SOCI index, and the layers read by it. */
async function makeLab(t: TestContext, init: LabInit = {}) {
  const { version = 2 } = init;
  const root = await mkdtemp(join(tmpdir(), 'shoal-soci-'));
  const ztoc = ztocOf(layer, { spanBytes: SPAN_BYTES, ...init });
  const index = indexOf(ztoc, init);
  const annotations = version === 2 ? { 'com.amazon.soci.index-digest': sha256(index) } : {};
  const lab = { change: (_at: number, _bytes: Uint8Array): void => {}, reads: [] as { length: number }[] };
  const asked: string[] = [];
  let held = 0;
  let decoded = 0;
  let blobs: BlobStore;
  const source = new MemoryBlob(layer);
  const client = {
    async blob(_repository: unknown, { digest }: { digest: Digest }) {
      if (digest === sha256(ztoc)) return new MemoryBlob(init.ztocLies === true ? changed(ztoc) : ztoc, digest);
      return {
        digest,
        size: layer.byteLength,
        async read(offset: number, length: number) {
          lab.reads.push({ length });
          const bytes = Uint8Array.from(layer.subarray(offset, offset + length));
          lab.change(offset, bytes);
          return bytes;
        },
      };
    },
    async manifest() {
      asked.push('manifest');
      return { bytes: init.lies === true ? changed(index) : index };
    },
    async referrers() {
      asked.push('referrers');
      const mediaType = 'application/vnd.oci.image.manifest.v1+json';
      return [{ mediaType, digest: sha256(index), size: index.byteLength, annotations: {} }];
    },
  } as unknown as RegistryClient;
  const openStore = async (): Promise<void> => {
    const store = await openBlobStore(
      {
        log: silentLogger,
        clock: systemClock,
        onHeld: () => {
          held += 1;
        },
      },
      { root, db: { getMany: async (keys) => keys.map(() => undefined), batch: async () => {} } },
    );
    blobs = store;
    store.connect(
      createOriginStore({
        blobs: createOriginBlobs({ blobs: store, registry: client }),
        decode: (...args) => {
          decoded += 1;
          return decodeExtent(...args);
        },
        onExtent: async ({ blob, index: row }, bytes) => await store.opened(blob)?.offerExtent(row, bytes, 'origin'),
      }),
    );
  };
  await openStore();
  t.after(async () => {
    await blobs.close();
    await rm(root, { recursive: true });
  });
  return Object.assign(lab, {
    root,
    asked,
    held: () => held,
    decoded: () => decoded,
    blobs: () => blobs,
    async reopen() {
      await blobs.close();
      await openStore();
    },
    open() {
      const layers = createSociLayers(
        {
          blobs,
          client,
          manifests: { manifest: async () => ({ annotations }) as unknown as ImageManifest },
          log: silentLogger,
        },
        {
          trustReferrers: init.trustReferrers ?? false,
          wholeBytesMax: init.wholeBytesMax ?? 1000,
          maxEntries: 10_000,
        },
      );
      return layers.open(source, { ...REFERENCE, manifest: SUBJECT }, { signal });
    },
    /** Both files, as the device has them. */
    async assertFiles() {
      const device = await blobs.open(sha256(layer));
      assert.ok(device !== undefined);
      const { root: tree } = decodeTree(await blobs.readTree(device.blob));
      const bytes = readFileSync(device.path);
      const files = [...tree.children.values()] as FileNode[];
      assert.deepEqual(
        files.map((file) => `sha256:${fileSha256(file, [bytes])}`),
        [sha256(content), sha256(words)],
      );
    },
  });
}

function indexOf(ztoc: Uint8Array, init: LabInit): Buffer {
  const written = init.versionWritten ?? init.version ?? 2;
  const type = `application/vnd.amazon.soci.index.v${written}+json`;
  const about = init.layers ?? [sha256(layer)];
  const layers = about.map((digest) => ({
    mediaType: 'application/octet-stream',
    digest: sha256(ztoc),
    size: ztoc.byteLength,
    annotations: { 'com.amazon.soci.image-layer-digest': digest },
  }));
  const imageType = 'application/vnd.oci.image.manifest.v1+json';
  const subject = { mediaType: imageType, digest: init.subject ?? SUBJECT, size: 1 };
  if (init.artifactManifest === true) {
    const mediaType = 'application/vnd.oci.artifact.manifest.v1+json';
    return Buffer.from(JSON.stringify({ mediaType, artifactType: type, blobs: layers, subject }));
  }
  const config = { mediaType: type, digest: sha256('{}'), size: 2 };
  const own = written === 1 ? { subject } : {};
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: imageType, config, layers, ...own }));
}

function changed(bytes: Uint8Array): Buffer {
  const other = Buffer.from(bytes);
  other[other.byteLength - 1] = (other.at(-1) as number) ^ 1;
  return other;
}
