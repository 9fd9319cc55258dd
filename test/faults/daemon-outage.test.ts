import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NODE_PROGRAMS, whyNot } from '../e2e/node-lab.ts';
import { run } from '../lab/process.ts';
import { checkSums, type FaultLab, withFaultLab } from './daemon-lab.ts';
import { type SlowProxy, startSlowProxy } from './slow-proxy.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const FAST = 256 * 1024 * 1024;
const WARM = 'usr/bin/env';
const COLD = ['usr/bin/perl', 'usr/bin/localedef', 'usr/bin/bash'] as const;

interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly tookMs: number;
}

async function read(directory: string, path: string): Promise<Outcome> {
  const startedAt = performance.now();
  const result = await run('sha256sum', [path], { cwd: directory, allowFailure: true, timeoutMs: 60_000 });
  return { ...result, tookMs: performance.now() - startedAt };
}

async function isRight(lab: FaultLab, { status, stdout, stderr }: Outcome): Promise<void> {
  assert.equal(status, 0, stderr);
  assert.deepEqual(await checkSums(lab.content, stdout), { lines: 1, wrong: [] });
}

function failed({ status, stdout, stderr }: Outcome): void {
  assert.equal(status, 1, stdout);
  assert.match(stderr, /Input\/output error/);
}

/** Takes the registry away (connections are refused) for so long. */
async function outage(lab: FaultLab, proxy: SlowProxy, ms: number): Promise<SlowProxy> {
  const port = Number(proxy.host.split(':')[1]);
  await proxy.stop();
  await sleep(ms);
  return await startSlowProxy({ upstreamPort: lab.registry.port, bytesPerSecond: FAST, port });
}

describe('a registry that is away for a while', { skip, timeout: 240_000 }, () => {
  it('costs a cold read a wait of 2 s, or an error when it stays away for 12 s; then all is as before (F16)', async () => {
    await withFaultLab({ bytesPerSecond: FAST }, async (lab) => {
      await using stack = new AsyncDisposableStack();
      const shoal = await lab.start();
      const directory = await lab.mount('image');
      await isRight(lab, await read(directory, WARM));

      const short = outage(lab, lab.proxy, 2_000);
      await sleep(200);
      const waited = await read(directory, COLD[0]);
      await isRight(lab, waited);
      assert.ok(waited.tookMs > 1_000 && waited.tookMs < 8_000, `${Math.round(waited.tookMs)} ms`);

      const long = outage(lab, await short, 12_000);
      await sleep(200);
      const [gaveUp, warm] = await Promise.all([read(directory, COLD[1]), read(directory, WARM)]);
      await isRight(lab, warm);
      failed(gaveUp);
      assert.ok(gaveUp.tookMs > 9_000 && gaveUp.tookMs < 13_000, `${Math.round(gaveUp.tookMs)} ms`);

      const back = await long;
      stack.defer(() => back.stop());
      await isRight(lab, await read(directory, COLD[1]));
      assert.equal((await lab.shoal('umount', directory)).status, 0);
      assert.equal(await shoal.stop(), 0);
    });
  });

  it('that takes connections and never answers costs a cold read at most 30 s, warm ones nothing (F15)', async () => {
    await withFaultLab({ bytesPerSecond: FAST }, async (lab) => {
      const shoal = await lab.start();
      const directory = await lab.mount('image');
      await isRight(lab, await read(directory, WARM));
      lab.proxy.setSilent(true);
      const cold = read(directory, COLD[0]);
      for (let round = 0; round < 10; round += 1) {
        await sleep(500);
        const warm = await read(directory, WARM);
        await isRight(lab, warm);
        assert.ok(warm.tookMs < 2_000, `${Math.round(warm.tookMs)} ms`);
      }
      const gaveUp = await cold;
      failed(gaveUp);
      assert.ok(gaveUp.tookMs < 30_500, `${Math.round(gaveUp.tookMs)} ms`);
      lab.proxy.setSilent(false);
      await isRight(lab, await read(directory, COLD[2]));
      await isRight(lab, await read(directory, COLD[0]));
      assert.equal((await lab.shoal('umount', directory)).status, 0);
      assert.equal(await shoal.stop(), 0);
    });
  });
});
