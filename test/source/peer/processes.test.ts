import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../../src/core/digest.ts';
import { generateSwarmKey, parseSwarmKey } from '../../../src/source/peer/swarm-key.ts';
import { digestsOf, forkNodes } from '../../bench/support/swarm-nodes.ts';
import { eventually, findAll } from '../../suites/peer-directory-suite.ts';
import { testSwarm } from './swarms.ts';

const limits = { timeout: 120_000 };

test('nodes of two processes are one swarm; when one dies the other is rid of it within seconds', limits, async () => {
  const keyText = generateSwarmKey();
  await using swarm = testSwarm({ key: parseSwarmKey(keyText, 'test') });
  const here = await swarm.add();
  const others = await forkNodes({ count: 3, keyText, bootstrapPort: here.status().port });
  try {
    await eventually(() => assert.equal(here.peers().length, 3), 30_000);
    await others.ask({ do: 'announce', node: 1, name: 'far', count: 200 });
    const [first, second] = digestsOf('far', 2) as [ReturnType<typeof sha256>, ReturnType<typeof sha256>];
    const found = await findAll(here, first);
    assert.equal(found.length, 1);
    assert.equal(here.byFingerprint(found[0]?.fingerprint as string)?.id, found[0]?.id);
    // They stop with no word, their sockets open: a host that lost its power looks like that from here.
    others.signal('SIGSTOP');
    const started = performance.now();
    const request = { blob: sha256('blob'), region: 1, digests: [second] };
    const answers = await here.claim(request, { signal: new AbortController().signal });
    assert.equal(answers.length, 1);
    assert.ok(performance.now() - started < 5_000);
    // None of the frozen holds up more than one claim.
    const noted = performance.now();
    for (let region = 2; region < 12; region += 1) {
      await here.claim({ ...request, region }, { signal: new AbortController().signal });
    }
    assert.ok(performance.now() - noted < 6_000);
    await eventually(async () => {
      await findAll(here, sha256(`probe ${performance.now()}`), 1_000);
      assert.equal(here.peers().length, 0);
    }, 30_000);
    others.signal('SIGCONT');
    await eventually(() => assert.equal(here.peers().length, 3), 60_000);
    others.signal('SIGKILL');
    await eventually(() => assert.equal(here.peers().length, 0), 10_000);
    await eventually(async () => assert.deepEqual(await findAll(here, second, 3_000), []));
  } finally {
    await others.stop();
  }
});
