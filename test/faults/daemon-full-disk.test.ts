import assert from 'node:assert/strict';
import { chmod, mkdir, rm, rmdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { whyNot } from '../e2e/node-lab.ts';
import { run } from '../lab/process.ts';
import { verifyRoot, withFaultLab } from './daemon-lab.ts';

const skip = await whyNot('docker-registry', 'mkfs.ext4');
const DISK_BYTES = 400 * 1024 * 1024;
/** Left for the daemon: less than the image. */
const FREE_MIB = 24;

describe('a daemon whose disk is full', { skip, timeout: 120_000 }, () => {
  it('answers cold reads with an error, corrupts nothing, and goes on when there is space again', async () => {
    await withFaultLab({ bytesPerSecond: 64 * 1024 * 1024 }, async (lab) => {
      const root = join(lab.dir, 'shoal/root');
      const disk = join(lab.dir, 'disk');
      await mkdir(root, { recursive: true });
      await writeFile(disk, '');
      await truncate(disk, DISK_BYTES);
      await run('mkfs.ext4', ['-q', '-m', '0', disk]);
      await run('mount', ['-o', 'loop', disk, root]);
      await rmdir(join(root, 'lost+found'));
      await chmod(root, 0o700);
      const filler = join(root, 'filler');
      const shoal = await lab.start();
      const mountpoint = await lab.mount('image');
      await fill(filler, root);

      const full = await lab.read(mountpoint, { processes: 2, loops: 8 });
      await sleep(6_000);
      const during = await full.stop();
      assert.deepEqual([during.wrong, during.firstWrong], [0, null]);
      assert.deepEqual(Object.keys(during.errors), ['EIO']);
      await rm(filler);

      await sleep(500);
      const free = await lab.read(mountpoint, { processes: 2, loops: 8 });
      await sleep(2_000);
      const after = await free.stop();
      assert.deepEqual([after.wrong, after.errors], [0, {}]);
      assert.ok(after.reads > 0);
      assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
      const again = await lab.mount('again');
      assert.equal((await lab.shoal('umount', again)).status, 0);
      assert.equal(await shoal.stop(), 0);
      const { checked, dropped } = await verifyRoot(root);
      assert.ok(checked > 0);
      assert.equal(dropped, 0);
    });
  });
});

/** Writes until FREE_MIB are left. */
async function fill(filler: string, root: string): Promise<void> {
  const { stdout } = await run('df', ['--output=avail', '-B1M', root]);
  const availableMib = Number(stdout.trim().split('\n').at(-1));
  await run('fallocate', ['-l', `${availableMib - FREE_MIB}M`, filler]);
}
