import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { rafsImage } from '../fakes/rafs/image.ts';
import { sampleEntries } from '../fakes/rafs/sample.ts';
import { prepareCorpus } from '../lab/corpus.ts';
import { pushRafs } from '../lab/nydus-format.ts';
import {
  CACHE,
  emptied,
  fetchManifest,
  NODE_PROGRAMS,
  runScript,
  settledBytes,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS, 'skopeo', 'mmdebstrap');
const NAME = 'corpus/debian-python';

test('a Nydus image is pulled without its data, runs and leaves nothing behind', { skip }, async (t) => {
  const { storage } = await prepareCorpus(CACHE, (line) => t.diagnostic(line));
  for (const tag of ['nydus', 'nydus-v5']) {
    await t.test(tag, async () => {
      await withNode({ storage }, async (node) => {
        const { registry, shoal, containerd } = node;
        const image = `${registry.host}/${NAME}:${tag}`;
        const manifest = await fetchManifest(registry, `${NAME}:${tag}`);
        await containerd.criPull(image);
        const { stdout } = await containerd.ctr(['content', 'ls', '-q']);
        assert.deepEqual(stdout.trim().split('\n').sort(), [manifest.digest, manifest.config.digest].sort());
        const ran = await runScript(node, { image, id: 'cold', script: 'python3 /srv/app/hello.py' });
        assert.deepEqual([ran.status, ran.stdout], [0, '{"hello": "shoal", "python": 3}\n'], ran.stderr);
        const layerBytes = manifest.layers.reduce((sum, { size }) => sum + size, 0);
        const fetched = await settledBytes(shoal);
        assert.ok(fetched > 0 && fetched < layerBytes / 2, `${fetched} of ${layerBytes} bytes`);
        const [status] = (await statusOf(shoal)).images;
        assert.equal(status?.error, undefined);
        assert.deepEqual(
          status?.layers.map(({ format }) => format),
          ['nydus', 'nydus', 'nydus'],
        );
        await containerd.criRemove(image);
        await emptied(node, ['k8s.io']);
      });
    });
  }
});

test('a Nydus image that cannot be read lazily fails its pull and says why', { skip }, async () => {
  await withDirectory(async (dir) => {
    const storage = join(dir, 'storage');
    await mkdir(storage);
    await withNode({ storage }, async (node) => {
      const image = rafsImage(sampleEntries(), {}, (boot) => {
        boot.writeUInt32LE(1, 4096 + 216);
        return boot;
      });
      await pushRafs(node.registry, 'nydus', 'encrypted', image);
      await assert.rejects(node.containerd.criPull(`${node.registry.host}/nydus:encrypted`));
      const [status] = (await statusOf(node.shoal)).images;
      assert.match(status?.error ?? '', /is encrypted/);
    });
  });
});
