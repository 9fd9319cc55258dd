import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { prepareAwkwardImage } from '../lab/awkward-image.ts';
import type { LabImages } from '../lab/images.ts';
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
        await node.containerd.criPull(`${node.registry.host}/${images.estargz}`);
        const chainId = await chainIdOf(node.registry, images.estargz);
        const shown = await treeOf(node.containerd, chainId, join(node.dir, 'tree'));
        const status = await statusOf(node.shoal);
        assert.equal(status.daemon.trap.kind, kind);
        assert.deepEqual(
          status.images.map(({ error }) => error),
          [undefined],
          'every layer is lazy',
        );
        assert.deepEqual(differences(expected, shown, unpackedAt), []);
      });
    });
  }
}
