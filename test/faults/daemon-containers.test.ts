import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NODE_PROGRAMS, whyNot } from '../e2e/node-lab.ts';
import { waitFor } from '../lab/process.ts';
import type { LabShoal } from '../lab/shoal.ts';
import { checkSums, keeperPid, startLabContainerd, withFaultLab } from './daemon-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
/** Reads most of the image, in an order in which reading ahead does not help. */
const READ_ALL =
  'find /usr/lib /usr/bin /usr/share -xdev -type f -print0 | sort -zR --random-source=/etc/passwd | head -zn 3000 | xargs -0 -P 8 -n 20 sha256sum';

describe('a container reading cold files', { skip, timeout: 240_000 }, () => {
  it('reads on, and rightly, while the daemon is killed and started again', async () => {
    await containerReads(async (shoal, start) => {
      let now = shoal;
      for (let kill = 0; kill < 4; kill += 1) {
        await sleep(300 + Math.random() * 1_500);
        now.daemon.child.kill('SIGKILL');
        await now.daemon.exited;
        await sleep(Math.random() * 500);
        now = await start();
      }
      return now;
    });
  });

  it('waits while the daemon is stopped, and reads on after its next start', async () => {
    await containerReads(async (shoal, start, isRunning) => {
      await sleep(1_000);
      assert.equal(await shoal.stop('SIGTERM'), 0);
      assert.notEqual(await keeperPid(shoal.root), undefined, 'nobody keeps the readers waiting');
      await sleep(2_000);
      assert.ok(await isRunning(), 'the container did not wait');
      const second = await start();
      await sleep(1_000);
      assert.equal(await second.stop('SIGTERM'), 0);
      return await start();
    });
  });
});

async function containerReads(
  disturb: (shoal: LabShoal, start: () => Promise<LabShoal>, isRunning: () => Promise<boolean>) => Promise<LabShoal>,
): Promise<void> {
  await withFaultLab({ bytesPerSecond: 10 * 1024 * 1024 }, async (lab) => {
    const first = await lab.start();
    const containerd = await startLabContainerd(lab, first, lab.proxy.host);
    try {
      await containerd.criPull(lab.image);
      const running = containerd.runContainer(lab.image, lab.containerId('reader'), ['sh', '-c', READ_ALL]);
      const isRunning = async () => (await containerd.ctr(['tasks', 'ls'])).stdout.includes('RUNNING');
      await waitFor('the container', isRunning, 60_000);
      const last = await disturb(first, () => lab.start(), isRunning);
      assert.ok(await isRunning(), 'everything was read before the end: the test tested too little');
      lab.proxy.setRate(64 * 1024 * 1024);
      const { status, stdout, stderr } = await running;
      assert.equal(status, 0, stderr.slice(-400));
      const { lines, wrong } = await checkSums(lab.content, stdout);
      assert.deepEqual(wrong, []);
      assert.ok(lines > 1_000, `${lines} files`);
      await containerd.criRemove(lab.image);
      assert.equal(await last.stop(), 0);
      assert.equal(await keeperPid(last.root), undefined, 'the keeper is left');
    } finally {
      await containerd.stop();
    }
  });
}
