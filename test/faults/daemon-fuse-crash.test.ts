import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { NODE_PROGRAMS, whyNot } from '../e2e/node-lab.ts';
import type { LabContainerd } from '../lab/containerd.ts';
import { waitFor } from '../lab/process.ts';
import { type FaultLab, startLabContainerd, withFaultLab } from './daemon-lab.ts';

const skip = await whyNot(...NODE_PROGRAMS);
const FUSE = '[trap]\nkind = "fuse"\n';
const KEY = 'made-before-the-crash';

describe('a daemon with the FUSE trap, killed', { skip, timeout: 240_000 }, () => {
  it('costs readers errors, never a wrong byte; started again it restores what was mounted by hand', async () => {
    await withFaultLab({ bytesPerSecond: 2 * 1024 * 1024 }, async (lab) => {
      const first = await lab.start({ config: FUSE });
      const mountpoint = await lab.mount('image');
      const readers = await lab.read(mountpoint, { processes: 2, loops: 8 });
      await sleep(1_500);
      first.daemon.child.kill('SIGKILL');
      await first.daemon.exited;
      await sleep(500);
      const seen = await readers.stop(20_000);
      assert.deepEqual([seen.wrong, seen.firstWrong], [0, null]);
      assert.ok(seen.reads > 0 && Object.keys(seen.errors).length > 0, JSON.stringify(seen));
      lab.proxy.setRate(64 * 1024 * 1024);
      const second = await lab.start({ config: FUSE });
      const anew = await lab.read(mountpoint, { processes: 2, loops: 8 });
      await sleep(1_000);
      const { wrong, errors, reads } = await anew.stop();
      assert.deepEqual([wrong, errors], [0, {}]);
      assert.ok(reads > 0);
      assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
      assert.equal(await second.stop(), 0);
    });
  });

  it('serves new containers and the mounts of old snapshots after its next start', async () => {
    await withFaultLab({ bytesPerSecond: 64 * 1024 * 1024 }, async (lab) => {
      const first = await lab.start({ config: FUSE });
      const containerd = await startLabContainerd(lab, first, lab.proxy.host);
      try {
        await containerd.criPull(lab.image);
        await printsHello(lab, containerd, 'before');
        const { stdout } = await snapshots(containerd, 'ls');
        const top = /^(sha256:\S+) +sha256:\S+ +Committed *$/m.exec(stdout)?.[1];
        assert.ok(top !== undefined, stdout);
        await snapshots(containerd, 'prepare', KEY, top);
        first.daemon.child.kill('SIGKILL');
        await first.daemon.exited;
        const second = await lab.start({ config: FUSE });
        await waitFor('containerd to connect again', async () => (await snapshots(containerd, 'ls')).status === 0);
        const mounts = await snapshots(containerd, 'mounts', `${lab.dir}/x`, KEY);
        assert.equal(mounts.status, 0, mounts.stderr);
        assert.match(mounts.stdout, /lowerdir=/);
        await printsHello(lab, containerd, 'after');
        await snapshots(containerd, 'rm', KEY);
        await containerd.criRemove(lab.image);
        assert.equal(await second.stop(), 0);
      } finally {
        await containerd.stop();
      }
    });
  });
});

async function printsHello(lab: FaultLab, containerd: LabContainerd, id: string): Promise<void> {
  const command = ['python3', '/srv/app/hello.py'];
  const { status, stdout, stderr } = await containerd.runContainer(lab.image, lab.containerId(id), command);
  assert.equal(status, 0, stderr);
  assert.equal(stdout.trim(), '{"hello": "shoal", "python": 3}');
}

function snapshots(containerd: LabContainerd, ...args: string[]) {
  return containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, ...args], { allowFailure: true });
}
