import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { rmdirSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/errors.ts';
import { isMounted, listMounts, parseMountInfo } from '../../src/mount/table.ts';
import { cannotMount, Lab } from './mount-lab.ts';

const skip = cannotMount('tmpfs');

/** What the kernel does to space, tab, newline, backslash and #. */
function mangle(text: string): string {
  return text.replace(/[ \t\n\\#]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

test('a line of mountinfo is read field by field', () => {
  const [entry, ...rest] = parseMountInfo(
    '36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 propagate_from:2 - fuse.x /dev/ro\\134ot rw,errors=continue\n',
  );
  assert.deepEqual(rest, []);
  assert.deepEqual(entry, {
    id: 36,
    parent: 35,
    device: '98:0',
    root: '/mnt1',
    target: '/mnt/a b',
    deleted: false,
    options: ['rw', 'noatime'],
    propagation: ['master:1', 'propagate_from:2'],
    fstype: 'fuse.x',
    source: '/dev/ro\\ot',
    superOptions: ['rw', 'errors=continue'],
  });
});

test('any target survives the kernel escapes', () => {
  const name = fc.string({ unit: 'grapheme', minLength: 1 }).filter((text) => !/[/\0]/.test(text));
  fc.assert(
    fc.property(name, name, (target, source) => {
      const [entry] = parseMountInfo(`1 0 0:1 / /${mangle(target)} rw - tmpfs ${mangle(source)} rw\n`);
      assert.equal(entry?.target, `/${target}`);
      assert.equal(entry?.source, source);
      assert.deepEqual(entry?.propagation, []);
    }),
  );
});

test('what is not mountinfo is refused', () => {
  for (const text of ['x', '36 35 98:0 / /mnt rw', '36 35 98:0 / /mnt rw - ext4']) {
    assert.throws(
      () => parseMountInfo(text),
      (error) => hasCode(error, 'STATE_CORRUPT'),
    );
  }
});

test('the list agrees with findmnt', () => {
  const shown = execFileSync('findmnt', ['-rno', 'ID'], { encoding: 'utf8' }).trim().split('\n').map(Number);
  const listed = new Set(listMounts().map((mount) => mount.id));
  // other processes may mount and unmount meanwhile
  assert.ok(shown.filter((id) => listed.has(id)).length >= 3);
  assert.ok(listMounts({ under: '/proc' }).some((mount) => mount.target === '/proc' && mount.fstype === 'proc'));
});

test('a mount whose directory was removed is marked deleted and keeps its name', () => {
  const [entry] = parseMountInfo('50 1 0:44 / /tmp/was\\040here//deleted rw - tmpfs tmpfs rw\n');
  assert.equal(entry?.target, '/tmp/was here');
  assert.equal(entry?.deleted, true);
});

test('only the exact mount point counts as mounted', { skip }, () => {
  using lab = new Lab();
  const target = lab.dir('a b');
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', target]);
  assert.equal(isMounted(target), true);
  assert.equal(isMounted(lab.path), false);
  assert.equal(isMounted(lab.at('absent')), false);
  lab.dir('a b', 'inside');
  assert.equal(isMounted(lab.at('a b', 'inside')), false);
  assert.equal(listMounts({ under: lab.at('a') }).length, 0);
  assert.equal(listMounts({ under: `${lab.path}/` }).length, 1);
  execFileSync('umount', [target]);
  assert.equal(isMounted(target), false);
  rmdirSync(target);
});
