import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { kernelConfig, probeKernel } from '../../src/kernel/probe.ts';
import { cannotMount, cannotRun, Lab, openFiles } from '../mount/mount-lab.ts';

const skip = cannotMount('erofs', 'overlay', 'tmpfs');
const TIMEOUT = 60_000;

test('on a local disk the probe agrees with what this kernel publishes, and leaves nothing behind', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const before = openFiles();
  const report = await probeKernel(lab.path);
  assert.deepEqual(openFiles(), before);
  assert.deepEqual(readdirSync(lab.path), []);
  assert.equal(report.release, readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim());
  const [major = 0, minor = 0] = report.release.split('.').map(Number);
  const since = (wantMajor: number, wantMinor: number): boolean =>
    major > wantMajor || (major === wantMajor && minor >= wantMinor);
  assert.equal(report.erofs.available, true);
  assert.equal(report.overlay.available, true);
  if (kernelConfig('CONFIG_EROFS_FS_BACKED_BY_FILE') !== undefined) {
    assert.equal(report.erofs.fileBacked.available, kernelConfig('CONFIG_EROFS_FS_BACKED_BY_FILE') === 'y');
  }
  if (report.filesystem.name === 'ext4' && since(6, 15)) assert.equal(report.fanotifyPreContent.available, true);
  if (!since(6, 14)) assert.equal(report.fanotifyPreContent.available, false);
  assert.equal(report.overlay.append.available, since(6, 8));
  assert.equal(report.nofile.available, report.nofile.hard >= 65_536);
});

test('tmpfs is refused for EROFS and fanotify with what to do', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', lab.dir('tmpfs')]);
  const report = await probeKernel(lab.at('tmpfs'));
  assert.equal(report.filesystem.name, 'tmpfs');
  for (const finding of [
    report.filesystem,
    report.erofs.fileBacked,
    report.erofs.multiDevice,
    report.fanotifyPreContent,
  ]) {
    assert.equal(finding.available, false);
    assert.match(finding.reason, /tmpfs.*move --root to ext4, xfs or btrfs/);
  }
});

test('overlayfs, a container root, is refused for EROFS, fanotify and as an upper directory', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const options = `lowerdir=${lab.dir('lower')},upperdir=${lab.dir('upper')},workdir=${lab.dir('work')}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, lab.dir('merged')]);
  const report = await probeKernel(lab.at('merged'));
  assert.equal(report.filesystem.name, 'overlayfs');
  for (const finding of [report.filesystem, report.erofs.fileBacked, report.fanotifyPreContent, report.overlay]) {
    assert.equal(finding.available, false);
    assert.match(finding.reason, /overlayfs.*move --root to ext4/);
  }
});

test('without privileges every finding says which one is missing', {
  skip: skip || cannotRun('setpriv'),
  timeout: TIMEOUT,
}, () => {
  using lab = new Lab();
  chmodSync(lab.path, 0o777);
  const script = `
    import { probeKernel } from ${JSON.stringify(import.meta.resolve('../../src/kernel/probe.ts'))};
    console.log(JSON.stringify(await probeKernel(process.argv[1])));`;
  const node = [process.execPath, '--input-type=module', '-e', script, lab.path];
  const child = spawnSync('setpriv', ['--bounding-set=-all', '--inh-caps=-all', ...node], { encoding: 'utf8' });
  assert.equal(child.status, 0, child.stderr);
  const report = JSON.parse(child.stdout);
  for (const finding of [report.erofs, report.overlay, report.overlay.append, report.fanotifyPreContent]) {
    assert.equal(finding.available, false);
    assert.match(finding.reason, /CAP_SYS_ADMIN/);
  }
});
