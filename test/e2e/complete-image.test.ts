import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { test } from 'node:test';
import { waitFor } from '../lab/process.ts';
import { emptied, labImages, mountsBelow, NODE_PROGRAMS, runScript, statusOf, whyNot, withNode } from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const HELLO = 'python3 /srv/app/hello.py';

test('an image that is fetched in the background is mounted directly for later containers', { skip }, async () => {
  const images = await labImages();
  await withNode({ storage: images.storage, config: '[fetch]\nbackground = true\n' }, async (node) => {
    const { registry, shoal, containerd } = node;
    const image = `${registry.host}/${images.estargz}`;
    await containerd.criPull(image);
    assert.match((await runScript(node, { image, id: 'first', script: HELLO })).stdout, /"hello"/);
    await waitFor(
      'the whole image',
      async () => (await statusOf(shoal)).images.every(({ layers }) => layers.every(({ complete }) => complete)),
      120_000,
    );
    assert.deepEqual(
      (await mountsBelow(shoal.root)).map((path) => basename(path)),
      ['s2'],
    );

    const second = await runScript(node, { image, id: 'second', script: `${HELLO}; sha256sum /usr/bin/python3` });
    assert.match(second.stdout, /"hello"/);
    assert.deepEqual((await mountsBelow(shoal.root)).map((path) => basename(path)).sort(), ['s2', 's2d']);
    assert.match(await readFile('/proc/self/mountinfo', 'utf8'), new RegExp(`${shoal.root}/mnt/s2d .*directio`));

    // both mounts show the same bytes, and a complete image raises no event any more
    const { faults } = await statusOf(shoal);
    const third = await runScript(node, { image, id: 'third', script: `${HELLO}; sha256sum /usr/bin/python3` });
    assert.equal(third.stdout, second.stdout);
    assert.deepEqual((await statusOf(shoal)).faults, faults);

    await containerd.criRemove(image);
    await emptied(node);
    assert.deepEqual(await mountsBelow(shoal.root), []);
  });
});
