import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createControlClient } from '../../src/control/client.ts';
import type { ChunkExplanation, ImageExplanation, LayerExplanation } from '../../src/control/explain.ts';
import { type CommandResult, run, waitFor } from '../lab/process.ts';
import { SHOAL_MAIN } from '../lab/shoal.ts';
import { type LabNode, labImages, NODE_PROGRAMS, runScript, statusOf, whyNot, withNode } from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const CONFIG = '[image."*/debian-python:esgz"]\nbackground = true\n';

test('every byte of an image is accounted for and explained', { skip }, async (t) => {
  const images = await labImages();
  await withNode({ storage: images.storage, config: CONFIG }, async (node) => {
    const image = `${node.registry.host}/${images.estargz}`;
    await node.containerd.criPull(image);
    const { status, stderr } = await runScript(node, { image, id: 'explain', script: 'python3 /srv/app/hello.py' });
    assert.equal(status, 0, stderr);

    await t.test('the background completes the image that is configured so', async () => {
      const done = await waitFor(
        'the whole image',
        async () => {
          const { images: all, background } = await statusOf(node.shoal);
          return all[0]?.layers.every(({ complete }) => complete) === true && background.state === 'idle' && background;
        },
        120_000,
      );
      assert.ok(done.bytes > 0 && done.layers === 0, JSON.stringify(done));
    });

    await t.test(
      'status and metrics have bytes, requests, latency and errors by source, in total and by image',
      async () => {
        const report = await statusOf(node.shoal);
        const [first] = report.images;
        const origin = first?.sources?.origin;
        assert.ok(origin !== undefined && origin.chunks > 0 && origin.meanMs > 0 && origin.slowestMs >= origin.meanMs);
        assert.deepEqual(origin.errors, {});
        assert.equal(origin.bytes, report.sources.origin?.bytes);
        const text = await createControlClient({ socket: node.shoal.control }).metrics();
        const labels = `{image="${image}",source="origin"}`;
        assert.ok(text.includes(`shoal_image_bytes_total${labels} ${origin.bytes}\n`), text);
        assert.ok(text.includes(`shoal_source_requests_total{source="origin",outcome="served"} ${origin.chunks}\n`));
        assert.match(text, /^shoal_background_bytes_total [1-9]/m);
      },
    );

    const explanation = await explainedJson<ImageExplanation>(node, image);

    await t.test('an image is explained by its name and by its digest, for people too', async () => {
      assert.deepEqual(await explainedJson(node, explanation.manifestDigest as string), explanation);
      assert.equal(explanation.layers.length, 2);
      for (const layer of explanation.layers) {
        assert.deepEqual([layer.lazy, layer.format, layer.chunksHere], [true, 'estargz', layer.chunksTotal]);
      }
      const { stdout } = await explained(node, image);
      assert.match(stdout, /^image +127\.0\.0\.1:\d+\/library\/debian-python:esgz$/m);
      assert.match(stdout, /^origin +\d+ +[\d.]+ [KM]iB +0 +0 +[\d.]+ ms$/m);
    });

    await t.test('so are a layer and a chunk', async () => {
      const digest = explanation.layers[0]?.digest as string;
      const layer = await explainedJson<LayerExplanation>(node, digest);
      assert.deepEqual(layer.images, [image]);
      assert.deepEqual(layer.repositories, [`${node.registry.host}/library/debian-python`]);
      assert.equal(layer.holders, undefined);
      const [fetched] = layer.fetches;
      assert.equal(fetched?.source, 'origin');
      const chunk = await explainedJson<ChunkExplanation>(node, fetched?.digest as string);
      assert.ok(chunk.places.some((place) => place.layer === digest && place.here && place.bytes === fetched?.bytes));
      assert.equal(chunk.fetches[0]?.steps.at(-1)?.outcome, 'served');
      assert.equal(chunk.whyNoNeighbour, 'the swarm is off');
      assert.match(
        (await explained(node, fetched?.digest as string)).stdout,
        /^not from a neighbour +the swarm is off$/m,
      );
    });

    await t.test('a layer that is not lazy says why', async () => {
      const plain = `${node.registry.host}/${images.plain}`;
      await node.containerd.criPull(plain);
      const { layers } = await explainedJson<ImageExplanation>(node, plain);
      const why = layers.find(({ lazy }) => !lazy)?.why;
      assert.ok(why !== undefined && why !== '', JSON.stringify(layers));
      assert.ok((await explained(node, plain)).stdout.includes(`is not lazy: ${why}`));
    });

    await t.test('what nobody knows is not found', async () => {
      for (const target of [`sha256:${'0'.repeat(64)}`, 'registry.example/unknown:1']) {
        const { status: code, stderr: said } = await explained(node, target);
        assert.deepEqual([code, said.startsWith('shoal: NOT_FOUND: ')], [1, true], said);
      }
      assert.match((await explained(node, 'sha256:xyz')).stderr, /^shoal: INVALID_DIGEST: /);
      assert.match((await explained(node, 'No Image')).stderr, /^shoal: INVALID_REFERENCE: /);
    });
  });
});

function explained({ shoal }: LabNode, ...args: string[]): Promise<CommandResult> {
  const command = [SHOAL_MAIN, 'explain', ...args, '--control', shoal.control];
  return run(process.execPath, command, { allowFailure: true });
}

async function explainedJson<T>(node: LabNode, target: string): Promise<T> {
  const { stdout, stderr } = await explained(node, target, '--json');
  assert.equal(stderr, '');
  return JSON.parse(stdout) as T;
}
