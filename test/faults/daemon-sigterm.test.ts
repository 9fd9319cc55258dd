import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { processIdentity } from '../../src/kernel/pidfd.ts';
import { mountsBelow, whyNot } from '../e2e/node-lab.ts';
import { run } from '../lab/process.ts';
import { type LabShoal, SHOAL_MAIN } from '../lab/shoal.ts';
import { keeperPid, withFaultLab } from './daemon-lab.ts';

const skip = await whyNot('docker-registry');
const CYCLES = 5;
/** So slow that readers are always waiting. */
const SLOW = 512 * 1024;

describe('the daemon told to end', { skip, timeout: 240_000 }, () => {
  for (const trap of ['fanotify', 'fuse']) {
    it(`ends within 20 s while readers wait, leaves nothing behind, and no reader sees zeros (${trap})`, async () => {
      await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
        const shoal = await lab.start({ config: `[trap]\nkind = "${trap}"\n` });
        const mountpoint = await lab.mount('image');
        const readers = await lab.read(mountpoint, { processes: 2, loops: 8 });
        await sleep(1_500);
        const keeper = await keeperPid(shoal.root);
        assert.equal(keeper !== undefined, trap === 'fanotify');
        const startedAt = performance.now();
        assert.equal(await shoal.stop('SIGTERM'), 0);
        const tookMs = performance.now() - startedAt;
        assert.ok(tookMs < 20_000, `took ${Math.round(tookMs)} ms`);
        await sleep(300);
        assert.deepEqual(await mountsBelow(lab.dir), []);
        assert.equal(
          keeper === undefined ? undefined : processIdentity(keeper),
          undefined,
          `the keeper is left\n${await readFile(shoal.daemon.logPath, 'utf8')}`,
        );
        assert.deepEqual([existsSync(shoal.socket), existsSync(shoal.control)], [false, false]);
        const seen = await readers.stop(10_000);
        assert.deepEqual([seen.wrong, seen.firstWrong], [0, null]);
        assert.ok(Object.keys(seen.errors).length > 0, 'no reader was interrupted: the test tested nothing');
        // what was mounted by hand is there again after a restart
        lab.proxy.setRate(64 * 1024 * 1024);
        const again = await lab.start({ config: `[trap]\nkind = "${trap}"\n` });
        const { status } = await run('cmp', [
          `${mountpoint}/srv/app/hello.py`,
          `${lab.content.directory}/srv/app/hello.py`,
        ]);
        assert.equal(status, 0);
        assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
        assert.equal(await again.stop(), 0);
      });
    });
  }

  it('ends at once when told twice, and readers go on waiting for the next one', async () => {
    await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
      const shoal = await lab.start();
      const mountpoint = await lab.mount('image');
      const readers = await lab.read(mountpoint, { processes: 1, loops: 8 });
      await sleep(1_000);
      shoal.daemon.child.kill('SIGTERM');
      const startedAt = performance.now();
      shoal.daemon.child.kill('SIGTERM');
      await shoal.daemon.exited;
      assert.ok(performance.now() - startedAt < 2_000, 'the second signal was not obeyed at once');
      const again = await lab.start();
      await sleep(500);
      const seen = await readers.stop(60_000);
      assert.equal(seen.wrong, 0);
      assert.equal(await again.stop(), 0);
    });
  });

  it('keeps no descriptor of a mount that is gone', async () => {
    await withFaultLab({ bytesPerSecond: 64 * 1024 * 1024 }, async (lab) => {
      const shoal = await lab.start();
      const counts: string[] = [];
      for (let cycle = 0; cycle < CYCLES; cycle += 1) {
        const mountpoint = await lab.mount('image');
        const readers = await lab.read(mountpoint, { processes: 1, loops: 8 });
        await sleep(700);
        const { wrong, errors, reads } = await readers.stop();
        assert.deepEqual([wrong, errors], [0, {}]);
        assert.ok(reads > 0);
        assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
        await sleep(500);
        counts.push(await descriptors(shoal));
      }
      assert.equal(counts.at(-1), counts[1], `descriptors by kind after each cycle:\n${counts.join('\n')}`);
      assert.equal(await shoal.stop(), 0);
    });
  });
});

describe('two daemons', { skip, timeout: 120_000 }, () => {
  it('do not share a root: the second ends with one line that says so', async () => {
    await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
      const shoal = await lab.start();
      const flags = ['--root', shoal.root, '--socket', `${lab.dir}/2.sock`, '--control', `${lab.dir}/2c.sock`];
      const second = await run(process.execPath, [SHOAL_MAIN, 'serve', '--log-level', 'error', ...flags], {
        allowFailure: true,
        timeoutMs: 20_000,
      });
      assert.notEqual(second.status, 0);
      assert.match(second.stderr, /^shoal: [^\n]*another shoal daemon uses [^\n]*\n$/);
      assert.equal(await shoal.stop(), 0);
    });
  });

  it('do not share a socket: the second leaves the first in peace', async () => {
    await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
      const shoal = await lab.start();
      const flags = ['--root', `${lab.dir}/root2`, '--socket', shoal.socket, '--control', `${lab.dir}/2c.sock`];
      const second = await run(process.execPath, [SHOAL_MAIN, 'serve', '--log-level', 'error', ...flags], {
        allowFailure: true,
        timeoutMs: 20_000,
      });
      assert.notEqual(second.status, 0);
      assert.match(second.stderr, /^shoal: [^\n]*another[^\n]*\n$/);
      assert.equal(await keeperPid(`${lab.dir}/root2`), undefined, 'it left its keeper');
      assert.deepEqual(await shoal.get('/v1/health'), { status: 'ok' });
      assert.equal(await shoal.stop(), 0);
    });
  });

  it('replace the sockets that a killed one left', async () => {
    await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
      const first = await lab.start();
      first.daemon.child.kill('SIGKILL');
      await first.daemon.exited;
      assert.deepEqual([existsSync(first.socket), existsSync(first.control)], [true, true]);
      const second = await lab.start();
      assert.equal(await second.stop(), 0);
      assert.equal(existsSync(second.socket), false);
    });
  });

  it('leave readers waiting when the second cannot start', async () => {
    await withFaultLab({ bytesPerSecond: SLOW }, async (lab) => {
      const first = await lab.start();
      const mountpoint = await lab.mount('image');
      const readers = await lab.read(mountpoint, { processes: 1, loops: 8 });
      await sleep(700);
      first.daemon.child.kill('SIGKILL');
      await first.daemon.exited;
      await writeFile(`${lab.dir}/taken`, 'not a socket');
      const flags = ['--root', first.root, '--socket', `${lab.dir}/taken`, '--control', first.control];
      const refused = await run(process.execPath, [SHOAL_MAIN, 'serve', '--log-level', 'error', ...flags], {
        allowFailure: true,
        timeoutMs: 20_000,
      });
      assert.notEqual(refused.status, 0);
      lab.proxy.setRate(64 * 1024 * 1024);
      const second = await lab.start();
      await sleep(500);
      const { wrong, errors } = await readers.stop();
      assert.deepEqual([wrong, errors], [0, {}]);
      assert.equal((await lab.shoal('umount', mountpoint)).status, 0);
      assert.equal(await second.stop(), 0);
    });
  });
});

/** How many descriptors of each kind the daemon holds, as one line. */
async function descriptors(shoal: LabShoal): Promise<string> {
  const folder = `/proc/${shoal.daemon.pid}/fd`;
  const kinds = new Map<string, number>();
  for (const fd of await readdir(folder)) {
    const target = await readlink(`${folder}/${fd}`).catch(() => '');
    const kind = target.startsWith(`${shoal.root}/meta`) ? 'database' : target.replace(/\[?\d+\]?$/, '');
    // connections to the registry and of the control socket come and go
    if (kind === '' || kind.startsWith('socket:')) continue;
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return [...kinds]
    .sort()
    .map(([kind, count]) => `${kind.replace(shoal.root, '')} ${count}`)
    .join(', ');
}
