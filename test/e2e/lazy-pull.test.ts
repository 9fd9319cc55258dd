import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { test } from 'node:test';
import { waitFor } from '../lab/process.ts';
import {
  emptied,
  fetchManifest,
  type LabNode,
  labImages,
  NODE_PROGRAMS,
  runScript,
  settledBytes,
  statusOf,
  whyNot,
  withNode,
} from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const HELLO = 'python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';
const RPULL = 'rpulled';

test('an image is pulled without its layers, runs, stays warm and leaves nothing behind', { skip }, async (t) => {
  const images = await labImages();
  await withNode({ storage: images.storage }, async (node) => {
    const { registry, shoal, containerd } = node;
    const image = `${registry.host}/${images.estargz}`;
    const manifest = await fetchManifest(registry, images.estargz);
    const descriptorsBefore = await openDescriptors(node);

    await t.test('a CRI pull downloads the manifest and the config only', async () => {
      await containerd.criPull(image);
      assert.deepEqual(await contentOf(node, 'k8s.io'), [manifest.digest, manifest.config.digest].sort());
    });

    await t.test('the container prints, and a small part of the layers was fetched', async () => {
      await printsHello(node, image, 'cold');
      const layerBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
      const fetched = await settledBytes(shoal);
      assert.ok(fetched > 0 && fetched < layerBytes / 4, `${fetched} of ${layerBytes} bytes`);
      const status = await statusOf(shoal);
      assert.equal(status.faults.denied, 0);
      assert.deepEqual(
        status.images.map(({ reference, layers }) => [reference, layers.map(({ format }) => format)]),
        [[image, ['estargz', 'estargz']]],
      );
    });

    await t.test('a second container fetches nothing more', async () => {
      const before = await settledBytes(shoal);
      await printsHello(node, image, 'warm');
      assert.equal(await settledBytes(shoal), before);
    });

    await t.test('ctr-remote images rpull works in another namespace', async () => {
      const flags = ['images', 'rpull', '--plain-http', '--snapshotter', containerd.snapshotter, image];
      await containerd.ctr(flags, { remote: true, namespace: RPULL });
      await printsHello(node, image, 'rpulled', RPULL);
      const content = await contentOf(node, RPULL);
      for (const { digest } of manifest.layers) assert.ok(!content.includes(digest), digest);
    });

    await t.test('a container reads on while its image is removed', async () => {
      const script = 'sleep 1.5; cat /usr/bin/perl /usr/bin/localedef > /tmp/both && sha256sum /tmp/both && echo read';
      const running = runScript(node, { image, id: 'reads-on', script });
      await waitFor('the container', async () => (await containerd.ctr(['tasks', 'ls'])).stdout.includes('RUNNING'));
      await containerd.criRemove(image);
      await containerd.ctr(['images', 'rm', '--sync', image], { namespace: RPULL });
      const { status, stdout, stderr } = await running;
      assert.equal(status, 0, stderr);
      assert.match(stdout, /^[0-9a-f]{64}.*\nread\n$/s);
    });

    await t.test('removal takes snapshots, mounts and blobs away', () => emptied(node, ['k8s.io', RPULL]));

    await t.test('pulling again right after removal works, over and over', async () => {
      for (let round = 0; round < 5; round += 1) {
        await containerd.criPull(image);
        if (round % 2 === 0) await printsHello(node, image, `again-${round}`);
        await containerd.criRemove(image);
      }
      await emptied(node, ['k8s.io', RPULL]);
      await waitFor('its descriptors', async () => (await openDescriptors(node)) <= descriptorsBefore + 8);
    });
  });
});

async function printsHello(node: LabNode, image: string, id: string, namespace = 'k8s.io'): Promise<void> {
  const { status, stdout, stderr } = await runScript(node, { image, id, script: HELLO, namespace });
  assert.deepEqual([status, stdout], [0, PRINTED], stderr);
}

/** Digests in containerd's content store. */
async function contentOf({ containerd }: LabNode, namespace: string): Promise<string[]> {
  const { stdout } = await containerd.ctr(['content', 'ls', '-q'], { namespace });
  return stdout.trim().split('\n').sort();
}

async function openDescriptors({ shoal }: LabNode): Promise<number> {
  return (await readdir(`/proc/${shoal.daemon.pid}/fd`)).length;
}
