import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseDigest } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import type { LayerReader } from '../../src/image/layer-reader.ts';
import type { ImageManifest } from '../../src/image/manifest.ts';
import { parseReference } from '../../src/image/reference.ts';
import { createLayerOpener, type LayerOpener } from '../../src/lazy/layer-opener.ts';
import { createLazyLayers } from '../../src/lazy/lazy-layers.ts';
import type { LazyRuns } from '../../src/lazy/runs.ts';
import { silentLogger } from '../../src/log.ts';
import type { BlobStore } from '../../src/store/blob-store.ts';

const { signal } = new AbortController();

function digestOf(number: number) {
  return parseDigest(`sha256:${number.toString(16).padStart(64, '0')}`);
}

type Device = Awaited<ReturnType<LayerOpener['open']>>;
const DEVICE = { info: { format: 'estargz', size: 1, sources: [] } } as unknown as Device;

function layersWith(open: LayerOpener['open'], here: () => boolean = () => false) {
  const noted: string[] = [];
  const layers = createLazyLayers({
    opener: { open, keepUnused: async () => {} },
    manifests: { manifest: async () => ({ layers: [] }) as unknown as ImageManifest },
    runs: {} as LazyRuns,
    blobs: { open: async () => (here() ? DEVICE : undefined) } as unknown as BlobStore,
    images: {
      note: (_reference, _manifest, { lazy }) => void noted.push(lazy ? 'lazy' : 'unpacked'),
      list: () => [],
      namesOf: () => [],
      retain: async () => {},
      flush: async () => {},
    },
    log: silentLogger,
  });
  return { layers, noted };
}

const OFFER = {
  key: 'k',
  parent: '',
  allLazyBelow: true,
  labels: new Map([
    ['containerd.io/snapshot/cri.image-ref', 'registry.example/app:1'],
    ['containerd.io/snapshot/cri.layer-digest', digestOf(1)],
  ]),
};

test('a layer that leaves directories to those below is unpacked where those are', async () => {
  const device = { info: { ...DEVICE.info, impliesDirs: true } } as unknown as Device;
  const { layers, noted } = layersWith(async () => device);
  assert.equal(await layers.offer({ ...OFFER, allLazyBelow: false }, { signal }), undefined);
  assert.deepEqual(await layers.offer(OFFER, { signal }), { blob: digestOf(1) });
  assert.deepEqual(noted, ['unpacked', 'lazy']);
});

test('a registry that does not answer is left alone, and asked no more for a while', async () => {
  let asked = 0;
  const { layers, noted } = layersWith(async () => {
    asked += 1;
    throw new ShoalError('SOURCE_FAILED', 'connection refused');
  });
  assert.equal(await layers.offer(OFFER, { signal }), undefined);
  assert.equal(await layers.offer(OFFER, { signal }), undefined);
  assert.equal(asked, 1);
  assert.deepEqual(noted, ['unpacked', 'unpacked']);
});

test('a layer that is here needs no registry', async () => {
  let here = false;
  const { layers } = layersWith(
    async () => {
      if (here) return DEVICE;
      throw new ShoalError('SOURCE_FAILED', 'connection refused');
    },
    () => here,
  );
  assert.equal(await layers.offer(OFFER, { signal }), undefined);
  here = true;
  assert.deepEqual(await layers.offer(OFFER, { signal }), { blob: digestOf(1) });
});

test('a pull that is cancelled does not make its registry one that does not answer', async () => {
  const cancelled = new AbortController();
  const { layers, noted } = layersWith(async () => {
    if (cancelled.signal.aborted) return DEVICE;
    cancelled.abort(new Error('gave up'));
    throw new ShoalError('DEADLINE_EXCEEDED', 'gave up waiting');
  });
  await assert.rejects(layers.offer(OFFER, { signal: cancelled.signal }), /gave up/);
  assert.deepEqual(await layers.offer(OFFER, { signal }), { blob: digestOf(1) });
  assert.deepEqual(noted, ['lazy']);
});

test('however many layers an image has, few are read at a time', async () => {
  let running = 0;
  let most = 0;
  const reader: LayerReader = {
    format: 'fake',
    async probe() {
      running += 1;
      most = Math.max(most, running);
      await nextTurn();
      running -= 1;
      return false;
    },
    read: () => Promise.reject(new Error('not asked for')),
  };
  const opener = createLayerOpener({
    registry: {
      openBlob: async (_reference, { digest }) => ({ digest, size: 10, read: async () => new Uint8Array(10) }),
    },
    blobs: { open: async () => undefined } as unknown as BlobStore,
    readers: [reader],
    log: silentLogger,
  });
  const opened = Array.from({ length: 1000 }, (_, number) =>
    opener.open(parseReference('app'), { digest: digestOf(number), annotations: {} }, { signal }),
  );
  for (const result of await Promise.allSettled(opened)) assert.equal(result.status, 'rejected');
  assert.ok(most > 1 && most <= 8, `${most} at a time`);
});
