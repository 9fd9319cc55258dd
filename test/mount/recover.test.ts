import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { mountErofs } from '../../src/mount/erofs.ts';
import { findLeftovers, unmountAll } from '../../src/mount/recover.ts';
import { cannotMount, eventually, Lab, writeImage } from './mount-lab.ts';

const skip = cannotMount('erofs', 'tmpfs');
const TIMEOUT = 60_000;

test('a root without mounts has no leftovers', async () => {
  using lab = new Lab();
  assert.deepEqual(findLeftovers(lab.at('absent')), []);
  lab.dir('mnt');
  assert.deepEqual(findLeftovers(lab.path), []);
  assert.deepEqual(await unmountAll(lab.path), { unmounted: [], detached: [], failed: [] });
});

test('mounts of a former life are found and taken down: nested, stacked, busy; others are left alone', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 1);
  const root = lab.dir('root');
  const tmpfs = (path: string): void => void execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', path]);
  const idle = await mountErofs({ ...paths, target: lab.dir('root/mnt/idle') });
  const busy = await mountErofs({ ...paths, target: lab.dir('root/mnt/busy') });
  tmpfs(lab.dir('root/mnt/nested'));
  tmpfs(lab.dir('root/mnt/nested/in side'));
  tmpfs(lab.dir('root/mnt/stacked'));
  tmpfs(lab.at('root/mnt/stacked'));
  tmpfs(lab.dir('root/elsewhere'));
  const sleeper = spawn('sleep', ['60'], { cwd: busy.target, stdio: 'ignore' });
  try {
    const link = lab.at('link');
    symlinkSync(root, link);
    assert.equal(findLeftovers(link).length, 6);
    const report = await unmountAll(link);
    const at = (name: string): string => join(root, 'mnt', name);
    assert.deepEqual(report.detached, [at('busy')]);
    assert.deepEqual(
      [...report.unmounted].sort(),
      [idle.target, at('nested'), at('nested/in side'), at('stacked'), at('stacked')].sort(),
    );
    assert.deepEqual(report.failed, []);
    assert.deepEqual(findLeftovers(root), []);
    assert.equal(idle.inUse(), false);
    assert.equal(busy.inUse(), true);
    execFileSync('mountpoint', ['-q', lab.at('root/elsewhere')]);
  } finally {
    sleeper.kill('SIGKILL');
  }
  assert.ok(await eventually(() => !busy.inUse()));
});
