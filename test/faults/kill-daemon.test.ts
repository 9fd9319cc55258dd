import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { killDaemon } from './kill-daemon.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('a daemon killed at random while 64 readers are in cold reads', { skip, timeout: 300_000 }, () => {
  it('costs readers a wait and nothing else (fanotify, 20 kills)', async () => {
    const { wrong, errors, reads, recovered } = await killDaemon('fanotify', 20);
    assert.deepEqual({ wrong, errors }, { wrong: 0, errors: 0 });
    assert.ok(reads > 0);
    assert.ok(recovered > 0, 'no kill found a reader waiting: the test tested nothing');
  });

  it('costs readers errors, never a wrong byte (FUSE, 8 kills)', async () => {
    const { wrong, reads } = await killDaemon('fuse', 8);
    assert.equal(wrong, 0);
    assert.ok(reads > 0);
  });
});
