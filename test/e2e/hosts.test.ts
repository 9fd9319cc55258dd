import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { withHosts } from '../lab/hosts.ts';
import { claimLab, remainsOf, sweepLab } from '../lab/lab-name.ts';
import { run } from '../lab/process.ts';
import { settled } from '../lab/swarm.ts';
import { labImages, NODE_PROGRAMS, whyNot } from './node-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS, 'ip', 'tc', 'nsenter');
const HELLO = 'python3 /srv/app/hello.py';
const PRINTED = '{"hello": "shoal", "python": 3}\n';

test('hosts without a swarm each cost the registry a download of what they read', { skip }, async () => {
  const { storage, estargz } = await labImages();
  await withHosts({ count: 2, storage }, async (lab) => {
    const image = `${lab.registry}/${estargz}`;
    const [first, second] = lab.hosts;
    assert.ok(first !== undefined && second !== undefined);
    for (const host of [first, second]) {
      const before = await lab.registrySent();
      const { status, stdout, stderr } = await host.run(image, HELLO);
      assert.deepEqual([status, stdout], [0, PRINTED], stderr);
      const { fetchedBytes } = await host.status();
      const sent = (await lab.registrySent()) - before;
      assert.ok(fetchedBytes > 0 && sent > fetchedBytes, `${sent} bytes sent for ${fetchedBytes} fetched`);
    }
    // what came in the last second is not durable yet, and a kill takes it away
    await settled([second]);
    await lab.plugRegistry(false);
    await second.restart('SIGKILL');
    const warm = await second.run(image, HELLO);
    assert.deepEqual([warm.status, warm.stdout], [0, PRINTED], warm.stderr);
  });
});

test('what the lab of a killed process left is taken away at the next start', { skip }, async () => {
  const program = fileURLToPath(new URL('../lab/lost-lab.ts', import.meta.url));
  const { stdout } = await run(process.execPath, [program], { allowFailure: true });
  const lost = stdout.trim();
  assert.match(lost, /^sl/);
  assert.equal((await remainsOf(lost)).length, 3, 'two namespaces and a process');
  const next = await claimLab();
  assert.deepEqual(await remainsOf(lost), []);
  await sweepLab(next.name);
});
