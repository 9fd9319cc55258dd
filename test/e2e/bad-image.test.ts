import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import {
  emptied,
  fetchManifest,
  type LabNode,
  labImages,
  mountsBelow,
  NODE_PROGRAMS,
  runScript,
  statusOf,
  whyNot,
  withDirectory,
  withNode,
} from './node-lab.ts';
import { blobPath, copyStorage, damageBlob, fetchConfig, locate, putImage, replaceBlob } from './registry-content.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest';
/** A file that nothing reads unasked, and one beside it. */
const DAMAGED = 'usr/bin/localedef';
const WHOLE = 'usr/bin/perl';

test('what an image or a registry lies about is never shown', { skip }, async (t) => {
  const images = await labImages();
  await withDirectory(async (top) => {
    const storage = await copyStorage(images.storage, top);
    await withNode({ storage }, async (node) => {
      const { registry, containerd, shoal } = node;
      const manifest = await fetchManifest(registry, images.estargz);
      const base = manifest.layers[0] as (typeof manifest.layers)[number];
      const path = blobPath(storage, base.digest);
      const places = locate(await readFile(path), DAMAGED);

      await t.test('a damaged chunk: its file cannot be read, the others can, and the log says which', async () => {
        const image = `${registry.host}/${images.estargz}`;
        const original = await damageBlob(path, (bytes) => {
          const at = places.file.offset + Math.floor(places.file.length / 2);
          bytes[at] = (bytes[at] as number) ^ 1;
        });
        await containerd.criPull(image);
        const failed = await read(node, images.estargz, 'damaged', DAMAGED);
        assert.notEqual(failed.status, 0);
        assert.match(failed.stderr, /localedef: Input\/output error/);
        assert.equal((await read(node, images.estargz, 'whole', WHOLE)).status, 0);
        const line = await logLine(node, /cold reads fail/);
        for (const name of [image, base.digest.slice('sha256:'.length), 'CHUNK_CORRUPT']) {
          assert.ok(line.includes(name), `${name} in ${line}`);
        }
        await replaceBlob(path, original);
        const again = await read(node, images.estargz, 'repaired', DAMAGED);
        assert.match(again.stdout, /^[0-9a-f]{64} /, again.stderr);
        await containerd.criRemove(image);
        await emptied(node);
      });

      await t.test('a table of contents with another digest than the manifest says: containerd unpacks', async () => {
        const image = images.estargz.replace(/:.*/, ':other-toc');
        const layers = manifest.layers.map((layer) => ({
          ...layer,
          annotations: { ...layer.annotations, [TOC_DIGEST]: `sha256:${'0'.repeat(64)}` },
        }));
        await putImage(registry, image, { layers, ...(await fetchConfig(registry, images.estargz, manifest)) });
        await containerd.criPull(`${registry.host}/${image}`);
        assert.deepEqual(await mountsBelow(shoal.root), []);
        const status = await statusOf(shoal);
        assert.deepEqual(
          status.images[0]?.layers.map(({ format }) => format),
          ['unpacked', 'unpacked'],
        );
        assert.match(status.images[0]?.error ?? '', /sha256:0000/);
        const { stdout, stderr } = await read(node, image, 'other-toc', WHOLE);
        assert.match(stdout, /^[0-9a-f]{64} /, stderr);
        await containerd.criRemove(`${registry.host}/${image}`);
        await emptied(node);
      });

      await t.test('a damaged table of contents: nothing is mounted and containerd refuses the layer', async () => {
        const original = await damageBlob(path, (bytes) => {
          const at = places.toc.offset + Math.floor(places.toc.length / 2);
          bytes[at] = (bytes[at] as number) ^ 1;
        });
        await assert.rejects(
          containerd.criPull(`${registry.host}/${images.estargz}`),
          /digest|checksum|unexpected commit/,
        );
        assert.deepEqual(await mountsBelow(shoal.root), []);
        assert.deepEqual((await statusOf(shoal)).images.at(-1)?.layers[0]?.format, 'unpacked');
        await replaceBlob(path, original);
      });
    });
  });
});

function read(node: LabNode, image: string, id: string, file: string) {
  return runScript(node, { image: `${node.registry.host}/${image}`, id, script: `sha256sum /${file}` });
}

async function logLine({ shoal }: LabNode, pattern: RegExp): Promise<string> {
  const lines = (await readFile(shoal.daemon.logPath, 'utf8')).split('\n');
  return lines.find((line) => pattern.test(line)) ?? '';
}
