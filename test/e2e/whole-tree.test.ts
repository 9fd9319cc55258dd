import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { prepareAwkwardImage } from '../lab/awkward-image.ts';
import type { LabImages } from '../lab/images.ts';
import { waitFor } from '../lab/process.ts';
import { CACHE, labImages, NODE_PROGRAMS, statusOf, whyNot, withNode } from './node-lab.ts';
import { chainIdOf, differences, treeOf, unpackedTree } from './tree-compare.ts';

const skip = await whyNot(...NODE_PROGRAMS);

test('Debian with Python: the whole tree is what overlayfs shows', { skip }, async (t) => {
  await compareTraps(t, await labImages());
});

test('layers by umoci and by hand: the whole tree is what overlayfs shows', { skip }, async (t) => {
  await compareTraps(t, await prepareAwkwardImage(CACHE, () => {}));
});

async function compareTraps(t: TestContext, images: LabImages): Promise<void> {
  const unpackedAt = Math.floor(Date.now() / 1000);
  const expected = await unpackedTree(images.storage, images.estargz);
  assert.ok(expected.size > 5_000, `${expected.size} entries`);
  for (const kind of ['fanotify', 'fuse']) {
    await t.test(kind, async () => {
      await withNode({ storage: images.storage, config: `[trap]\nkind = "${kind}"\n` }, async (node) => {
        const check = async (image: string, title: string): Promise<void> => {
          const reference = `${node.registry.host}/${image}`;
          await node.containerd.criPull(reference);
          const shown = await treeOf(node.containerd, await chainIdOf(node.registry, image), join(node.dir, title));
          const status = await statusOf(node.shoal);
          assert.equal(status.daemon.trap.kind, kind);
          const pulled = status.images.find((each) => each.reference === reference);
          assert.ok(pulled !== undefined && pulled.error === undefined, `every layer is lazy: ${pulled?.error}`);
          assert.deepEqual(differences(expected, shown, unpackedAt), [], title);
          await node.containerd.criRemove(reference);
          const left = () => readdir(join(node.shoal.root, 'blobs'));
          await waitFor('the layers to go', async () => (await left()).length === 0);
        };
        await check(images.estargz, 'estargz');
        await check(images.plain, 'read-whole');
        await check(images.plain, 'by-index');
      });
    });
  }
}
