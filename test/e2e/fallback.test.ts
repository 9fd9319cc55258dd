import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ImageStatus } from '../../src/control/status.ts';
import { freePort } from '../lab/registry.ts';
import { connectSnapshots } from '../snapshot/client.ts';
import {
  emptied,
  fetchManifest,
  type LabNode,
  labImages,
  type Manifest,
  mountsBelow,
  NODE_PROGRAMS,
  runScript,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';
import { copyStorage, fetchConfig, putImage } from './registry-content.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const HELLO = 'test ! -e /usr/share/doc && python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';
/** A Prepare for a registry that was found dead a moment ago; it is not asked again. */
const AT_ONCE_MS = 1_500;

test('what cannot be read lazily is unpacked, layer by layer', { skip }, async (t) => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const config = '[layers]\nplain = false\n';
    await withNode({ storage: await copyStorage(images.storage, top), config }, async (node) => {
      const { registry, containerd, shoal } = node;
      const plain = await fetchManifest(registry, images.plain);
      const lazy = await fetchManifest(registry, images.estargz);
      const { config: imageConfig, diffIds: plainIds } = await fetchConfig(registry, images.plain, plain);
      const { diffIds: lazyIds } = await fetchConfig(registry, images.estargz, lazy);
      const layersOf = (manifest: Manifest, diffIds: readonly string[]): Layers =>
        manifest.layers.map((layer, at) => ({ layer, diffId: diffIds[at] ?? '' })) as unknown as Layers;
      const [p, l] = [layersOf(plain, plainIds), layersOf(lazy, lazyIds)];

      const mixed = async (name: string, layers: Layers): Promise<string> => {
        const image = images.plain.replace(/:.*/, `:${name}`);
        await putImage(registry, image, {
          config: imageConfig,
          layers: layers.map(({ layer }) => layer),
          diffIds: layers.map(({ diffId }) => diffId),
        });
        return image;
      };

      await t.test('a lazy layer below an unpacked one is not downloaded', async () => {
        const image = await mixed('lazy-below', [l[0], p[1]]);
        await pullsAndRuns(node, image, ['estargz', 'unpacked']);
        const content = (await containerd.ctr(['content', 'ls', '-q'])).stdout;
        assert.ok(!content.includes(l[0].layer.digest), 'the lazy layer');
        assert.ok(content.includes(p[1].layer.digest), 'the plain layer');
        assert.equal((await mountsBelow(shoal.root)).length, 1);
        await removed(node, image);
      });

      await t.test('a lazy layer above an unpacked one is mounted lazily, its whiteouts in force', async () => {
        const image = await mixed('lazy-above', [p[0], l[1]]);
        await pullsAndRuns(node, image, ['unpacked', 'estargz']);
        assert.equal((await mountsBelow(shoal.root)).length, 1);
        await removed(node, image);
      });

      await t.test('a plain image is unpacked as containerd always does', async () => {
        const before = (await statusOf(shoal)).fetchedBytes;
        await pullsAndRuns(node, images.plain, ['unpacked', 'unpacked']);
        assert.deepEqual(await mountsBelow(shoal.root), []);
        assert.equal((await statusOf(shoal)).fetchedBytes, before);
        await removed(node, images.plain);
      });
    });
  });
});

test('an image whose registry shoal cannot reach is unpacked soon', { skip }, async (t) => {
  const images = await labImages();
  const config = '[fetch]\nconnect_timeout_ms = 500\nstall_timeout_ms = 500\n';
  await withNode({ storage: images.storage, config }, async (node) => {
    const manifest = await fetchManifest(node.registry, images.estargz);
    const silent = await silentServer();
    try {
      const hosts = { 'refuses connections': await freePort(), 'never answers': silent.port };
      for (const [title, port] of Object.entries(hosts)) {
        await t.test(`a registry that ${title}`, async () => {
          const host = `127.0.0.1:${port}`;
          await mirror(node, host);
          const image = `${host}/${images.estargz}`;
          await node.containerd.criPull(image);
          const begun = performance.now();
          await offerAgain(node, image, manifest);
          const tookMs = performance.now() - begun;
          assert.ok(tookMs < AT_ONCE_MS, `${tookMs} ms`);
          const formats = (await imageStatus(node, image)).layers.map(({ format }) => format);
          assert.deepEqual(formats, ['unpacked', 'unpacked']);
          const run = await runScript(node, { image, id: `unpacked-${port}`, script: HELLO });
          assert.equal(run.stdout, PRINTED, run.stderr);
          await node.containerd.criRemove(image);
          await emptied(node);
        });
      }
    } finally {
      silent.close();
    }
  });
});

type Layer = { readonly layer: Manifest['layers'][number]; readonly diffId: string };
type Layers = readonly [Layer, Layer];

async function pullsAndRuns(node: LabNode, image: string, formats: readonly string[]): Promise<void> {
  const reference = `${node.registry.host}/${image}`;
  await node.containerd.criPull(reference);
  const { status, stdout, stderr } = await runScript(node, { image: reference, id: 'runs', script: HELLO });
  assert.deepEqual([status, stdout], [0, PRINTED], stderr);
  const { layers } = await imageStatus(node, reference);
  assert.deepEqual(
    layers.map(({ format }) => format),
    formats,
  );
}

async function removed(node: LabNode, image: string): Promise<void> {
  await node.containerd.criRemove(`${node.registry.host}/${image}`);
  await emptied(node);
}

async function imageStatus({ shoal }: LabNode, reference: string): Promise<ImageStatus> {
  const found = (await statusOf(shoal)).images.find((image) => image.reference === reference);
  assert.ok(found, reference);
  return found;
}

/** Makes containerd, but not shoal, find `host` at the lab's registry. */
async function mirror({ dir, registry }: LabNode, host: string): Promise<void> {
  const folder = join(dir, 'containerd/certs.d', host);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'hosts.toml'), `server = "http://${host}"\n[host."http://${registry.host}"]\n`);
}

/** Asks for one more layer of the image as containerd would, and gives the snapshot back. */
async function offerAgain({ shoal }: LabNode, image: string, manifest: Manifest): Promise<void> {
  const client = connectSnapshots(shoal.socket);
  try {
    await client.prepare('offered-again', '', {
      'containerd.io/snapshot.ref': 'offered-again-target',
      'containerd.io/snapshot/cri.image-ref': image,
      'containerd.io/snapshot/cri.manifest-digest': manifest.digest,
      'containerd.io/snapshot/cri.layer-digest': manifest.layers[1]?.digest ?? '',
    });
    await client.remove('offered-again');
  } finally {
    client.close();
  }
}

/** Takes connections and says nothing. */
async function silentServer(): Promise<{ port: number; close(): void }> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
