import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '../lab/process.ts';
import { SHOAL_MAIN } from '../lab/shoal.ts';
import {
  emptied,
  fetchManifest,
  labImages,
  NODE_PROGRAMS,
  runScript,
  settledBytes,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';
import { copyStorage } from './registry-content.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const HELLO = 'test ! -e /usr/share/doc && python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';

test('an image of plain tar.gz layers is read whole once, and lazily from then on', { skip }, async (t) => {
  const images = await labImages();
  await withNode({ storage: images.storage }, async (node) => {
    const { registry, shoal, containerd } = node;
    const image = `${registry.host}/${images.plain}`;
    const manifest = await fetchManifest(registry, images.plain);
    const layerBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
    const hello = async (id: string): Promise<void> => {
      const { status, stdout, stderr } = await runScript(node, { image, id, script: HELLO });
      assert.deepEqual([status, stdout], [0, PRINTED], stderr);
    };
    const layers = async () => (await statusOf(shoal)).images.flatMap((each) => each.layers);

    await t.test('the first start fetches each byte once, and containerd none', async () => {
      await containerd.criPull(image);
      await hello('first');
      assert.equal(await settledBytes(shoal), layerBytes);
      const content = (await containerd.ctr(['content', 'ls', '-q'])).stdout;
      for (const { digest } of manifest.layers) assert.ok(!content.includes(digest), digest);
      const shown = await layers();
      assert.deepEqual(
        shown.map(({ format, complete }) => [format, complete]),
        [
          ['tar.gz', true],
          ['tar.gz', true],
        ],
      );
      assert.match(shown[0]?.why ?? '', /no index/);
      assert.match(shown[1]?.why ?? '', /small/);
    });

    await t.test('once removed and pulled again, a small part of the layers is fetched', async () => {
      await containerd.criRemove(image);
      await emptied(node);
      const before = await settledBytes(shoal);
      await containerd.criPull(image);
      await hello('second');
      const fetched = (await settledBytes(shoal)) - before;
      t.diagnostic(`${fetched} of ${layerBytes} bytes`);
      assert.ok(fetched > 0 && fetched < layerBytes / 2, `${fetched} of ${layerBytes} bytes`);
      const shown = await layers();
      assert.match(shown[0]?.why ?? '', /index from this node/);
      assert.equal(shown[0]?.complete, false);
    });
  });
});

test('a node that trusts the registry starts with the index that was pushed there', { skip }, async () => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const config = '[layers]\nindex_trust = "registry"\n';
    await withNode({ storage: await copyStorage(images.storage, top), config }, async (node) => {
      const image = `${node.registry.host}/${images.plain}`;
      const args = [SHOAL_MAIN, 'index', 'build', '--push', image, '--root', join(top, 'elsewhere')];
      assert.match((await run(process.execPath, args)).stdout, /pushed/);
      await node.containerd.criPull(image);
      const { status, stdout, stderr } = await runScript(node, { image, id: 'trusting', script: HELLO });
      assert.deepEqual([status, stdout], [0, PRINTED], stderr);
      const [pulled] = (await statusOf(node.shoal)).images;
      assert.match(pulled?.layers[0]?.why ?? '', /index from the registry/);
      assert.equal(pulled?.layers[0]?.complete, false);
    });
  });
});
