import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { prepareCorpus } from '../lab/corpus.ts';
import { FORMATS } from '../lab/formats.ts';
import { CACHE, NODE_PROGRAMS, statusOf, whyNot, withNode } from './node-lab.ts';
import { chainIdOf, differences, treeOf, unpackedTree } from './tree-compare.ts';

const skip = await whyNot(...NODE_PROGRAMS, ...FORMATS.flatMap(({ programs }) => programs));

test('every image of the corpus shows the tree that overlayfs shows, in every format', { skip }, async (t) => {
  for (const image of await prepareCorpus(CACHE, () => {})) {
    await t.test(image.name, async (inner) => {
      const unpackedAt = Math.floor(Date.now() / 1000);
      const expected = await unpackedTree(image.storage, `${image.name}:plain`);
      for (const format of FORMATS) {
        const why = image.cannot[format.tag];
        await inner.test(format.shown, why === undefined ? {} : { skip: why }, async () => {
          await withNode({ storage: image.storage }, async (node) => {
            const reference = `${image.name}:${format.tag}`;
            await node.containerd.criPull(`${node.registry.host}/${reference}`);
            const shown = await treeOf(
              node.containerd,
              await chainIdOf(node.registry, reference),
              join(node.dir, 'tree'),
            );
            const [status] = (await statusOf(node.shoal)).images;
            assert.deepEqual([...new Set(status?.layers.map((layer) => layer.format))], [format.shown], status?.error);
            assert.deepEqual(differences(expected, shown, unpackedAt), []);
          });
        });
      }
    });
  }
});
