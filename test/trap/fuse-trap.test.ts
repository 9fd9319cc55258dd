import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { silentLogger } from '../../src/log.ts';
import { createFuseTrap } from '../../src/trap/fuse/fuse-trap.ts';
import { trapSuite } from '../suites/trap-suite.ts';
import { labDirectory, run } from './erofs-lab.ts';

trapSuite('fuse', createFuseTrap);

describe('fuse trap', { skip: process.getuid?.() === 0 ? false : 'needs root', timeout: 30_000 }, () => {
  it('is not held open by child processes, so that its readers fail when the daemon dies', async () => {
    const directory = labDirectory();
    const trap = await createFuseTrap({ log: silentLogger }, { runDir: directory.path });
    const { out } = await run('ls', ['-l', '/proc/self/fd']);
    assert.ok(!out.toString().includes('/dev/fuse'), out.toString());
    await trap.close();
    directory.remove();
  });

  it('removes what a crashed daemon left mounted, and says so', async () => {
    const directory = labDirectory();
    const crashed = await createFuseTrap({ log: silentLogger }, { runDir: directory.path });
    await crashed.abandon();
    const trap = await createFuseTrap({ log: silentLogger }, { runDir: directory.path });
    assert.deepEqual([crashed.lost, trap.lost], [false, true]);
    await trap.close();
    const { out } = await run('cat', ['/proc/self/mounts']);
    assert.ok(!out.toString().includes(directory.path));
    directory.remove();
  });
});
