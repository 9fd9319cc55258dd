import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Digest } from '../../src/core/digest.ts';
import { readErofs } from '../../src/erofs/reader.ts';
import { ShoalError } from '../../src/errors.ts';
import type { ImageManifest } from '../../src/image/manifest.ts';
import { createLayerReaders } from '../../src/image/readers/index.ts';
import { parseReference } from '../../src/image/reference.ts';
import { createBootstraps } from '../../src/lazy/bootstraps.ts';
import type { ImageRecords } from '../../src/lazy/images.ts';
import { createLayerOpener } from '../../src/lazy/layer-opener.ts';
import { createLazyLayers } from '../../src/lazy/lazy-layers.ts';
import { devicesOfRun } from '../../src/lazy/run-devices.ts';
import type { LazyRuns } from '../../src/lazy/runs.ts';
import type { LayerOffer, LazyLayers } from '../../src/snapshot/lazy-layers.ts';
import type { BlobStore } from '../../src/store/blob-store.ts';
import { MemoryBlob } from '../fakes/memory-blob.ts';
import type { RafsOptions } from '../fakes/rafs/blob-writer.ts';
import { type RafsEntry, TYPE } from '../fakes/rafs/entries.ts';
import { type RafsImage, rafsImage } from '../fakes/rafs/image.ts';
import { mixed, sampleEntries } from '../fakes/rafs/sample.ts';
import { openStore, RecordingLogger, stateRoot, storedEdges } from '../store/store-fixture.ts';

const signal = AbortSignal.timeout(60_000);
const REFERENCE = 'registry.example/library/app:1';
const MANIFEST = `sha256:${'a'.repeat(64)}`;

interface Lab {
  readonly layers: LazyLayers;
  readonly noted: { lazy: boolean; reason?: string | undefined }[];
  opener: ReturnType<typeof createLayerOpener>;
}

/** What the daemon puts together, over these images and without a kernel. */
function labOf(blobs: BlobStore, images: readonly RafsImage[], blobsInUse: () => Set<Digest> = () => new Set()): Lab {
  const all = images.flatMap((image) => [...image.blobs, image.bootstrap]);
  const log = new RecordingLogger();
  const noted: Lab['noted'] = [];
  const opener = createLayerOpener({
    registry: {
      async openBlob(_reference, { digest }) {
        const found = all.find(({ descriptor }) => descriptor.digest === digest);
        if (found === undefined) throw new ShoalError('REGISTRY_RESPONSE', `no blob ${digest}`, { status: 404 });
        return new MemoryBlob(found.bytes, digest);
      },
    },
    blobs,
    readers: createLayerReaders(),
    log,
  });
  const manifest = { layers: all.map(({ descriptor }) => descriptor) } as unknown as ImageManifest;
  const layers = createLazyLayers({
    opener,
    manifests: { manifest: async () => manifest },
    runs: { blobsInUse } as unknown as LazyRuns,
    blobs,
    images: {
      note: (...[, , { lazy, reason }]: Parameters<ImageRecords['note']>) => void noted.push({ lazy, reason }),
      retain: async () => {},
    } as unknown as ImageRecords,
    log,
  });
  return { layers, noted, opener };
}

function offerOf(digest: Digest, extra: Record<string, string> = { 'cri.manifest-digest': MANIFEST }): LayerOffer {
  const labels = new Map([
    ['containerd.io/snapshot/cri.image-ref', REFERENCE],
    ['containerd.io/snapshot/cri.layer-digest', digest as string],
  ]);
  for (const [name, value] of Object.entries(extra)) labels.set(`containerd.io/snapshot/${name}`, value);
  return { key: 'k', parent: '', allLazyBelow: true, labels };
}

function digestsOf(image: RafsImage): Digest[] {
  return [...image.blobs, image.bootstrap].map(({ descriptor }) => descriptor.digest);
}

test('every layer of a Nydus image is accepted, and its bootstrap lies on the data blobs', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries());
  const { layers, noted } = labOf(blobs, [image]);
  const digests = digestsOf(image);
  for (const digest of digests) assert.deepEqual(await layers.offer(offerOf(digest), { signal }), { blob: digest });
  assert.ok(noted.every(({ lazy }) => lazy));
  const parts = await devicesOfRun(blobs, digests);
  assert.deepEqual(parts.devices, digests.slice(0, 2));
  assert.deepEqual(
    parts.layers.map(({ devices }) => devices),
    [[], [], [0, 1]],
  );
  const made = await createBootstraps({ blobs }, { directory: join(root.path, 'boot') }).make(
    { name: 's1', parts, bottom: true },
    { reuse: false },
  );
  const { tree, superblock } = readErofs(await readFile(made.path));
  assert.equal(superblock.devices.length, 2);
  assert.equal(tree.root.children.size, 4);
});

test('a client that sends no manifest digest is served by its list of layers', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries());
  const { layers } = labOf(blobs, [image]);
  const [first] = digestsOf(image);
  const labels = { 'cri.image-layers': digestsOf(image).join(','), 'nydus-blob': 'true' };
  assert.deepEqual(await layers.offer(offerOf(first as Digest, labels), { signal }), { blob: first });
  assert.equal(await layers.offer(offerOf(first as Digest, { 'nydus-blob': 'true' }), { signal }), undefined);
});

test('the data blobs of a Nydus image know where the large files of its bootstrap end', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries());
  const { opener } = labOf(blobs, [image]);
  await opener.open(parseReference(REFERENCE), image.bootstrap.descriptor, { signal });
  const [data, other] = digestsOf(image) as [Digest, Digest];
  const [start, end, ...rest] = await storedEdges(root.path, data);
  assert.equal((end as number) - (start as number), Math.ceil(3_000_001 / 4096), 'bin/tool');
  assert.deepEqual(rest, []);
  assert.deepEqual(await storedEdges(root.path, other), []);
});

test('a data blob is not accepted when the bootstrap cannot be read', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries(), {}, (boot) => {
    boot.writeUInt32LE(1, 4096 + 216);
    return boot;
  });
  const { layers, noted } = labOf(blobs, [image]);
  const [first] = digestsOf(image);
  assert.equal(await layers.offer(offerOf(first as Digest), { signal }), undefined);
  assert.match(noted.at(-1)?.reason ?? '', /is encrypted/);
  assert.deepEqual(await blobs.list(), []);
});

test('collecting keeps the devices of a bootstrap that is in use, and takes them with it', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries());
  const { layers, opener } = labOf(blobs, [image]);
  const { bootstrap } = image;
  await opener.open(parseReference(REFERENCE), bootstrap.descriptor, { signal });
  assert.equal((await blobs.list()).length, 3);
  await layers.collect(new Set([bootstrap.descriptor.digest]));
  assert.equal((await blobs.list()).length, 3);
  await layers.collect(new Set());
  assert.equal((await blobs.list()).length, 0);
});

test('a bootstrap whose devices were lost is read again', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const image = rafsImage(sampleEntries());
  const { opener } = labOf(blobs, [image]);
  const open = () => opener.open(parseReference(REFERENCE), image.bootstrap.descriptor, { signal });
  await open();
  const [first] = digestsOf(image);
  await blobs.remove(first as Digest);
  await open();
  assert.ok((await blobs.open(first as Digest)) !== undefined);
});

/** Two images whose second one also uses the first one's blob, as with a chunk dictionary. */
function withDictionary(options: Partial<RafsOptions>): [RafsImage, RafsImage] {
  const base: RafsEntry[] = [
    { path: '', mode: TYPE.dir | 0o755 },
    { path: 'a', mode: TYPE.file | 0o644, content: mixed(50_000, 1) },
    { path: 'b', mode: TYPE.file | 0o644, content: mixed(70_000, 2) },
  ];
  const more: RafsEntry[] = [...base, { path: 'c', mode: TYPE.file | 0o644, content: mixed(9_000, 3), blob: 1 }];
  return [rafsImage(base, options), rafsImage(more, options)];
}

test('a blob of another image (chunk dictionary) is one device for both', async () => {
  for (const options of [{}, { version: 5, aligned: false }] as const) {
    await using root = await stateRoot();
    await using blobs = await openStore(root.path);
    const [one, two] = withDictionary(options);
    const { opener } = labOf(blobs, [one, two]);
    for (const { bootstrap } of [one, two])
      await opener.open(parseReference(REFERENCE), bootstrap.descriptor, { signal });
    assert.equal(one.blobs[0]?.written.id, two.blobs[0]?.written.id);
    const { devices } = await devicesOfRun(
      blobs,
      [one, two].map(({ bootstrap }) => bootstrap.descriptor.digest),
    );
    assert.equal(devices.length, 2);
  }
});

test('a data blob that no file lies on is a layer all the same', async () => {
  await using root = await stateRoot();
  await using blobs = await openStore(root.path);
  const entries: RafsEntry[] = [
    { path: '', mode: TYPE.dir | 0o755 },
    { path: 'a', mode: TYPE.file | 0o644, content: mixed(50_000, 1), blob: 1 },
    { path: 'none', mode: TYPE.file | 0o644, content: new Uint8Array() },
  ];
  const image = rafsImage(entries);
  const { layers } = labOf(blobs, [image]);
  for (const digest of digestsOf(image)) {
    assert.deepEqual(await layers.offer(offerOf(digest), { signal }), { blob: digest });
  }
  const { devices } = await devicesOfRun(blobs, digestsOf(image));
  assert.deepEqual(devices, digestsOf(image).slice(1, 2));
});
