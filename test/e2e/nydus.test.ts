import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { rafsImage } from '../fakes/rafs/image.ts';
import { sampleEntries } from '../fakes/rafs/sample.ts';
import { startContainerd } from '../lab/containerd.ts';
import { convertToNydus, pushRafs } from '../lab/nydus-format.ts';
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
import { chainIdOf, differences, treeOf, unpackedTree } from './tree-compare.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const NAME = 'library/debian-python';
const HELLO = 'python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';

test('a Nydus image is pulled without its data, runs, and shows the tree that overlayfs shows', { skip }, async (t) => {
  const { storage } = await labImages();
  const unpackedAt = Math.floor(Date.now() / 1000);
  await withDirectory(async (dir) => {
    const copy = await copyStorage(storage, dir);
    const expected = await unpackedTree(copy, `${NAME}:plain`);
    for (const [tag, options] of [
      ['nydus-v6', { chunkInfoV2: true, batchSize: 0x20000, compressor: 'lz4_block' }],
      ['nydus-v5', { version: 5, aligned: false, digester: 'sha256' }],
    ] as const) {
      await t.test(tag, async () => {
        await withNode({ storage: copy }, async (node) => {
          const { registry, shoal, containerd } = node;
          const work = join(node.dir, 'work');
          await mkdir(work);
          const unpacker = await startContainerd({ dir: work, registryHost: registry.host });
          try {
            await convertToNydus({ registry, containerd: unpacker, work }, NAME, { tag, options });
          } finally {
            await unpacker.stop();
          }
          const image = `${registry.host}/${NAME}:${tag}`;
          const manifest = await fetchManifest(registry, `${NAME}:${tag}`);
          await containerd.criPull(image);
          const { stdout } = await containerd.ctr(['content', 'ls', '-q']);
          assert.deepEqual(stdout.trim().split('\n').sort(), [manifest.digest, manifest.config.digest].sort());
          const run = await runScript(node, { image, id: 'cold', script: HELLO });
          assert.deepEqual([run.status, run.stdout], [0, PRINTED], run.stderr);
          const layerBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
          const fetched = await settledBytes(shoal);
          assert.ok(fetched > 0 && fetched < layerBytes / 2, `${fetched} of ${layerBytes} bytes`);
          const [status] = (await statusOf(shoal)).images;
          assert.equal(status?.error, undefined);
          assert.deepEqual(
            status?.layers.map(({ format }) => format),
            ['nydus', 'nydus', 'nydus'],
          );
          const chainId = await chainIdOf(registry, `${NAME}:${tag}`);
          assert.deepEqual(
            differences(expected, await treeOf(containerd, chainId, join(node.dir, 'tree')), unpackedAt),
            [],
          );
          await containerd.criRemove(image);
          await emptied(node, ['k8s.io']);
        });
      });
    }
  });
});

test('a Nydus image that cannot be read lazily fails its pull and says why', { skip }, async () => {
  const { storage } = await labImages();
  await withDirectory(async (dir) => {
    await withNode({ storage: await copyStorage(storage, dir) }, async (node) => {
      const image = rafsImage(sampleEntries(), {}, (boot) => {
        boot.writeUInt32LE(1, 4096 + 216);
        return boot;
      });
      await pushRafs(node.registry, NAME, 'encrypted', image);
      await assert.rejects(node.containerd.criPull(`${node.registry.host}/${NAME}:encrypted`));
      const [status] = (await statusOf(node.shoal)).images;
      assert.match(status?.error ?? '', /is encrypted/);
    });
  });
});
