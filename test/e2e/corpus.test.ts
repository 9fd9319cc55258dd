import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { prepareCorpus } from '../lab/corpus.ts';
import { FORMATS } from '../lab/formats.ts';
import { CACHE, NODE_PROGRAMS, statusOf, whyNot, withNode } from './node-lab.ts';
import { chainIdOf, differences, treeOf } from './tree-compare.ts';

const skip = await whyNot(...NODE_PROGRAMS, 'skopeo', 'mmdebstrap', ...FORMATS.flatMap(({ programs }) => programs));

/** Building all of it in every form, and comparing. */
const TIMEOUT_MS = 60 * 60_000;

test('every image of the corpus shows the tree that overlayfs shows, in every format', {
  skip,
  timeout: TIMEOUT_MS,
}, async (t) => {
  const { storage, images } = await prepareCorpus(CACHE, (line) => t.diagnostic(line));
  // Small layers too in the format that is looked at.
  const config = '[layers]\nwhole_bytes_max = 0\n';
  await withNode({ storage, config }, async ({ dir, registry, shoal, containerd }) => {
    for (const [index, image] of images.entries()) {
      const { rows, unpackedAt } = await image.expected();
      for (const format of FORMATS) {
        const why = image.cannot[format.tag];
        if (why !== undefined) {
          t.diagnostic(`${image.name} cannot be expressed as ${format.tag}: ${why}`);
          continue;
        }
        await t.test(`${image.name} as ${format.tag}`, async () => {
          const name = `${image.name}:${format.tag}`;
          const reference = `${registry.host}/${name}`;
          await containerd.criPull(reference);
          const chainId = await chainIdOf(registry, name);
          const shown = await treeOf(containerd, chainId, join(dir, `tree-${index}-${format.tag}`));
          const status = (await statusOf(shoal)).images.find((each) => each.reference === reference);
          const formats = new Set(status?.layers.map((layer) => layer.format));
          assert.deepEqual([...formats], [format.shown], JSON.stringify(status));
          assert.deepEqual(differences(rows, shown, unpackedAt), []);
          await containerd.criRemove(reference);
        });
      }
    }
  });
});
