import assert from 'node:assert/strict';
import { mkdirSync, readdirSync } from 'node:fs';
import { describe, it } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { hasCode } from '../../src/errors.ts';
import { syscall } from '../../src/kernel/libc.ts';
import { probeFanotifyTrap } from '../../src/kernel/probe.ts';
import { silentLogger } from '../../src/log.ts';
import { chooseTrap, type TrapPreference } from '../../src/trap/choose.ts';
import { endLeftKeeper } from '../../src/trap/keeper/keeper.ts';
import { labDirectory, unmount } from './erofs-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('chooseTrap', { skip, timeout: 60_000 }, () => {
  const choose = (prefer: TrapPreference, runDir: string, blobsDir: string) =>
    chooseTrap({ log: silentLogger, clock: systemClock }, { prefer, runDir, blobsDir, onFatal: () => {} });

  it('follows the configuration', async () => {
    const directory = labDirectory();
    for (const prefer of [
      'fuse',
      ...((await probeFanotifyTrap(directory.path)).available ? (['fanotify'] as const) : []),
    ] as const) {
      const { trap, reason } = await choose(prefer, `${directory.path}/run`, directory.path);
      assert.equal(trap.kind, prefer);
      assert.match(reason, /the configuration asks for it/);
      await trap.close();
    }
    directory.remove();
  });

  it('takes FUSE, and says why, where the file system has no pre-content events', async () => {
    const directory = labDirectory();
    const blobs = `${directory.path}/blobs`;
    mkdirSync(blobs);
    syscall('mount', 'tmpfs', blobs, 'tmpfs', 0, 'size=1m');
    try {
      assert.equal((await probeFanotifyTrap(blobs)).available, false);
      assert.deepEqual(readdirSync(blobs), []);
      const { trap, reason } = await choose('auto', `${directory.path}/run`, blobs);
      assert.equal(trap.kind, 'fuse');
      assert.match(reason, /^fuse: .*pre-content events/);
      await trap.close();
      await assert.rejects(choose('fanotify', `${directory.path}/run`, blobs), (error) =>
        hasCode(error, 'TRAP_UNAVAILABLE'),
      );
    } finally {
      await unmount(blobs);
      directory.remove();
    }
  });

  it('never takes FUSE while readers of a former daemon wait for its fanotify trap', async (t) => {
    const directory = labDirectory();
    t.after(() => directory.remove());
    const { available, reason } = await probeFanotifyTrap(directory.path);
    if (!available) return t.skip(reason);
    const runDir = `${directory.path}/run`;
    const { trap } = await choose('fanotify', runDir, directory.path);
    await trap.abandon();
    try {
      await assert.rejects(choose('fuse', runDir, directory.path), (error) => hasCode(error, 'FAILED_PRECONDITION'));
    } finally {
      assert.equal(endLeftKeeper(runDir), true);
    }
    const { trap: after } = await choose('fuse', runDir, directory.path);
    assert.equal(after.kind, 'fuse');
    await after.close();
  });
});
