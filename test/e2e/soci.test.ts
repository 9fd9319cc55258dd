import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { waitFor } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { convertToSoci, referWithSoci, type SociOptions } from '../lab/soci-format.ts';
import {
  fetchManifest,
  type LabNode,
  labImages,
  NODE_PROGRAMS,
  runScript,
  settledBytes,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';
import { blobPath, copyStorage, damageBlob } from './registry-content.ts';
import { chainIdOf, differences, treeOf, unpackedTree } from './tree-compare.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const HELLO = 'test ! -e /usr/share/doc && python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';
/** As SOCI's own tools: small layers have no ztoc. */
const MIN_LAYER_BYTES = 1024 * 1024;

test('an image that names a SOCI index starts lazily by it, with the tree that overlayfs shows', {
  skip,
}, async (t) => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const storage = await withSoci(images, top, { minLayerBytes: MIN_LAYER_BYTES });
    const unpackedAt = Math.floor(Date.now() / 1000);
    const expected = await unpackedTree(storage, images.plain);
    await withNode({ storage }, async (node) => {
      const name = images.plain.replace(/:.*/, ':soci');
      const image = `${node.registry.host}/${name}`;
      const manifest = await fetchManifest(node.registry, name);
      await node.containerd.criPull(image);

      await t.test('a start fetches a part of the layer', async () => {
        await hello(node, image, 'first');
        const layerBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
        const fetched = await settledBytes(node.shoal);
        t.diagnostic(`${fetched} of ${layerBytes} bytes`);
        assert.ok(fetched < layerBytes * 0.7, `${fetched} of ${layerBytes} bytes`);
        assert.deepEqual(await howRead(node), [
          ['soci', 'SOCI index that the image names', false],
          ['tar.gz', 'fetched whole: it is small', true],
        ]);
        const content = (await node.containerd.ctr(['content', 'ls', '-q'])).stdout;
        for (const { digest } of manifest.layers) assert.ok(!content.includes(digest), digest);
      });

      await t.test('the whole tree is the same', async () => {
        const shown = await treeOf(node.containerd, await chainIdOf(node.registry, name), join(node.dir, 'tree'));
        assert.deepEqual(differences(expected, shown, unpackedAt), []);
      });

      await t.test('and still is after the daemon was started again', async () => {
        assert.equal(await node.shoal.stop(), 0);
        const again = await startShoal({ dir: node.shoal.dir });
        const list = ['snapshots', '--snapshotter', node.containerd.snapshotter, 'ls'];
        try {
          await waitFor('containerd to be connected again', () =>
            node.containerd.ctr(list).then(
              () => true,
              () => false,
            ),
          );
          await hello({ ...node, shoal: again }, image, 'again');
          const shown = await treeOf(node.containerd, await chainIdOf(node.registry, name), join(node.dir, 'tree2'));
          assert.deepEqual(differences(expected, shown, unpackedAt), []);
        } finally {
          assert.equal(await again.stop(), 0);
        }
      });
    });
  });
});

test('a SOCI index that only refers to the image is used where the registry is trusted', { skip }, async (t) => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const storage = await copyStorage(images.storage, top);
    await onRegistry(storage, top, (registry) => referWithSoci(registry, images.plain));
    for (const [trust, how] of [
      ['registry', ['soci', 'SOCI index from the registry']],
      ['local', ['tar.gz', 'fetched whole: there was no index for it']],
    ] as const) {
      await t.test(`index_trust = ${trust}`, async () => {
        await withNode({ storage, config: `[layers]\nindex_trust = "${trust}"\n` }, async (node) => {
          const image = `${node.registry.host}/${images.plain}`;
          await node.containerd.criPull(image);
          await hello(node, image, 'trusting');
          assert.deepEqual((await howRead(node))[0]?.slice(0, 2), how);
        });
      });
    }
  });
});

test('bytes that are not those of the span digest are never shown', { skip }, async (t) => {
  const images = await labImages();
  await withDirectory(async (top) => {
    await t.test('the layer is damaged', async () => {
      const storage = await withSoci(images, join(top), {});
      await withNode({ storage }, async (node) => {
        const name = images.plain.replace(/:.*/, ':soci');
        const [base] = (await fetchManifest(node.registry, name)).layers;
        const path = blobPath(storage, base?.digest ?? '');
        // A flipped bit every 300 kB: in every span.
        await damageBlob(path, (bytes) => {
          for (let at = 10_000; at < bytes.byteLength; at += 300_000) bytes[at] = (bytes[at] as number) ^ 0x10;
        });
        await node.containerd.criPull(`${node.registry.host}/${name}`);
        assert.equal((await howRead(node))[0]?.[0], 'soci');
        const { status, stdout } = await runScript(node, {
          image: `${node.registry.host}/${name}`,
          id: 'damaged',
          script: HELLO,
        });
        assert.notEqual(status, 0);
        assert.equal(stdout, '');
      });
    });
  });
});

test('a ztoc that makes no sense is passed over, and the layer read whole', { skip }, async () => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const storage = await withSoci(images, top, { digests: (digests) => digests.slice(1) });
    await withNode({ storage }, async (node) => {
      const image = `${node.registry.host}/${images.plain.replace(/:.*/, ':soci')}`;
      await node.containerd.criPull(image);
      await hello(node, image, 'senseless');
      assert.equal((await howRead(node))[0]?.[1], 'fetched whole: there was no index for it');
    });
  });
});

async function hello(node: LabNode, image: string, id: string): Promise<void> {
  const { status, stdout, stderr } = await runScript(node, { image, id, script: HELLO });
  assert.deepEqual([status, stdout], [0, PRINTED], stderr);
}

/** Format, reason and completeness of each layer. */
async function howRead({ shoal }: LabNode): Promise<(readonly [string, string | undefined, boolean])[]> {
  const layers = (await statusOf(shoal)).images.flatMap((each) => each.layers);
  return layers.map(({ format, why, complete }) => [format, why, complete === true]);
}

/** A copy of the storage with the plain image once more, under the tag `soci`. */
async function withSoci(
  images: { storage: string; plain: string },
  dir: string,
  options: SociOptions,
): Promise<string> {
  const storage = await copyStorage(images.storage, dir);
  await onRegistry(storage, dir, (registry) =>
    convertToSoci({ registry }, { from: images.plain, tag: 'soci', options }),
  );
  return storage;
}

async function onRegistry(
  storage: string,
  workDir: string,
  use: (registry: Awaited<ReturnType<typeof startRegistry>>) => Promise<unknown>,
): Promise<void> {
  const registry = await startRegistry({ workDir, storage });
  await use(registry).finally(() => registry.stop());
}
