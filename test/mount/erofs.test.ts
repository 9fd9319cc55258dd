import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { hasCode } from '../../src/errors.ts';
import { adoptErofs, mountErofs } from '../../src/mount/erofs.ts';
import { diskReadAheadKb } from '../../src/mount/superblock.ts';
import { isMounted, listMounts } from '../../src/mount/table.ts';
import { cannotMount, cannotRun, eventually, Lab, openFiles, readElsewhere, writeImage } from './mount-lab.ts';

const skip = cannotMount('erofs', 'overlay');
const TIMEOUT = 60_000;

test('an image made by mkfs.erofs with a blob device reads back', {
  skip: skip || cannotRun('mkfs.erofs'),
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const source = lab.dir('source');
  lab.file('source/one', 'x'.repeat(300_000));
  lab.file('source/two', Buffer.alloc(12_345, 'abc'));
  const made = { image: lab.at('image'), devices: [lab.at('blob')], target: lab.dir('mnt') };
  execFileSync('mkfs.erofs', ['--quiet', '--chunksize', '4096', `--blobdev=${lab.at('blob')}`, made.image, source]);
  const mounted = await mountErofs(made);
  execFileSync('diff', ['-r', source, made.target]);
  assert.equal(await mounted.unmount(), 'unmounted');
});

for (const count of [1, 64, 1000]) {
  test(`an image with ${count} devices mounts read-only and every device reads back`, {
    skip,
    timeout: TIMEOUT,
  }, async () => {
    using lab = new Lab();
    const { contents, ...paths } = writeImage(lab.at('image'), count);
    const mounted = await mountErofs({ ...paths, target: lab.dir('mnt') });
    const names = contents.map((_, device) => join(mounted.target, `f${device}`));
    const all = execFileSync('cat', names, { maxBuffer: 1 << 25, timeout: 20_000 });
    assert.ok(all.equals(Buffer.concat(contents)));
    const [entry] = listMounts({ under: mounted.target });
    assert.equal(entry?.fstype, 'erofs');
    assert.ok(entry?.options.includes('ro'));
    assert.ok(!entry?.options.some((option) => option === 'nosuid' || option === 'nodev'));
    assert.equal(await mounted.unmount(), 'unmounted');
    assert.equal(mounted.inUse(), false);
  });
}

test('paths may be longer than 255 bytes and hold commas, colons, spaces and backslashes', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const folder = lab.dir('a,b:c d\\e', 'n'.repeat(200), 'm'.repeat(200));
  const { contents, ...paths } = writeImage(folder, 3);
  const target = lab.dir('at, this: place\\040\n#');
  const before = openFiles();
  const mounted = await mountErofs({ ...paths, target });
  assert.deepEqual(await readElsewhere(join(target, 'f2')), contents[2]);
  assert.equal(isMounted(target), true);
  assert.deepEqual(
    listMounts({ under: target }).map((mount) => mount.target),
    [target],
  );
  assert.equal(await mounted.unmount(), 'unmounted');
  assert.deepEqual(openFiles(), before);
});

test('the read-ahead of the mount is raised, to 1024 KiB unless asked otherwise', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 1);
  for (const [readAheadKb, shown] of [
    [undefined, '1024'],
    [256, '256'],
  ] as const) {
    const mounted = await mountErofs({
      ...paths,
      target: lab.dir('mnt'),
      ...(readAheadKb === undefined ? {} : { readAheadKb }),
    });
    const name = mounted.sysfsName;
    assert.match(name ?? '', /^erofs-\d+$/);
    assert.equal(readFileSync(`/sys/class/bdi/${name}/read_ahead_kb`, 'utf8').trim(), shown);
    await mounted.unmount();
    assert.equal(existsSync(`/sys/fs/erofs/${name}`), false);
  }
});

test('mounts made at the same time each know their own superblock', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  const images = Array.from({ length: 8 }, (_, index) => writeImage(lab.at(`image${index}`), 1));
  const mounts = await Promise.all(
    images.map(({ image, devices }, index) => mountErofs({ image, devices, target: lab.dir(`mnt${index}`) })),
  );
  assert.equal(new Set(mounts.map((mounted) => mounted.sysfsName)).size, 8);
  for (const [index, mounted] of mounts.entries()) {
    await mounted.unmount();
    const alive = mounts.map((other) => other.inUse());
    assert.deepEqual(
      alive,
      mounts.map((_, other) => other > index),
    );
  }
});

test('a busy mount is detached, and stays in use until its last file is closed', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const { contents, ...paths } = writeImage(lab.at('image'), 1);
  const mounted = await mountErofs({ ...paths, target: lab.dir('mnt') });
  const reader = spawn('sh', ['-c', 'exec 3<"$0"; echo open; read go; cat <&3', join(mounted.target, 'f0')], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    await once(reader.stdout, 'data');
    assert.equal(await mounted.unmount(), 'detached');
    assert.equal(isMounted(mounted.target), false);
    assert.equal(mounted.inUse(), true);
    assert.equal(await mounted.unmount(), 'absent');
    const chunks: Buffer[] = [];
    reader.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    reader.stdin.end('go\n');
    await once(reader, 'close');
    assert.deepEqual(Buffer.concat(chunks), contents[0]);
    assert.ok(await eventually(() => !mounted.inUse()));
  } finally {
    reader.kill('SIGKILL');
  }
});

test('an overlay keeps the superblock of an unmounted image in use', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  const { contents, ...paths } = writeImage(lab.at('image'), 1);
  const mounted = await mountErofs({ ...paths, target: lab.dir('mnt') });
  const merged = lab.dir('merged');
  const options = `lowerdir=${mounted.target},upperdir=${lab.dir('upper')},workdir=${lab.dir('work')}`;
  execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', options, merged]);
  assert.equal(await mounted.unmount(), 'unmounted');
  assert.equal(mounted.inUse(), true);
  assert.deepEqual(await readElsewhere(join(merged, 'f0')), contents[0]);
  execFileSync('umount', [merged]);
  assert.ok(await eventually(() => !mounted.inUse()));
});

test('a mount of a former life is adopted, by its recorded name or by asking the kernel', {
  skip,
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 1);
  const made = await mountErofs({ ...paths, target: lab.dir('mnt') });
  const asked = adoptErofs(made.target);
  const recorded = adoptErofs(made.target, made.sysfsName);
  assert.equal(asked.sysfsName, made.sysfsName);
  assert.equal(await recorded.unmount(), 'unmounted');
  assert.deepEqual([asked.inUse(), recorded.inUse(), made.inUse()], [false, false, false]);
});

test('what is not known to be free counts as in use', { skip, timeout: TIMEOUT }, () => {
  using lab = new Lab();
  assert.equal(adoptErofs(lab.dir('nothing')).inUse(), true);
});

test('through loop devices everything reads the same, and the devices go with the mount', {
  skip: skip || (existsSync('/dev/loop-control') ? false : 'no /dev/loop-control'),
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  const { contents, ...paths } = writeImage(lab.at('image'), 3);
  const before = openFiles();
  const mounted = await mountErofs({ ...paths, target: lab.dir('mnt'), backing: 'loop' });
  assert.match(mounted.sysfsName ?? '', /^loop\d+$/);
  for (const [device, bytes] of contents.entries()) {
    assert.deepEqual(await readElsewhere(join(mounted.target, `f${device}`)), bytes);
  }
  const loops = execFileSync('losetup', ['-a'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(lab.path));
  assert.equal(loops.length, 4);
  assert.equal(mounted.inUse(), true);
  assert.equal(await mounted.unmount(), 'unmounted');
  assert.equal(mounted.inUse(), false);
  assert.deepEqual(openFiles(), before);
  assert.ok(await eventually(() => !execFileSync('losetup', ['-a'], { encoding: 'utf8' }).includes(lab.path)));
});

test('an image on tmpfs is refused, and falls back to loop devices only when asked to', {
  skip: skip || cannotMount('tmpfs') || (existsSync('/dev/loop-control') ? false : 'no /dev/loop-control'),
  timeout: TIMEOUT,
}, async () => {
  using lab = new Lab();
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', lab.dir('tmpfs')]);
  const { contents, ...paths } = writeImage(lab.at('tmpfs', 'image'), 2);
  const target = lab.dir('mnt');
  await assert.rejects(mountErofs({ ...paths, target }), (error) => {
    return hasCode(error, 'MOUNT_FAILED') && /ENOTBLK/.test(error.message);
  });
  assert.equal(isMounted(target), false);
  const mounted = await mountErofs({ ...paths, target, backing: 'file-or-loop' });
  assert.match(mounted.sysfsName ?? '', /^loop\d+$/);
  assert.deepEqual(await readElsewhere(join(target, 'f1')), contents[1]);
  await mounted.unmount();
});

test('a refusal repeats what the kernel says and leaves nothing open', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 2);
  const target = lab.dir('mnt');
  const cases = [
    [{ ...paths, image: lab.file('bad', Buffer.alloc(8192)) }, /EINVAL.*cannot find valid erofs superblock/],
    [{ ...paths, devices: paths.devices.slice(1) }, /EINVAL.*extra devices don't match \(ondisk 2, given 1\)/],
    [{ ...paths, devices: [...paths.devices.slice(1), lab.at('gone')] }, /ENOENT.*\/gone does not exist/],
    [{ ...paths, target: lab.at('nowhere') }, /move_mount: ENOENT.*\/nowhere/],
  ] as const;
  const before = openFiles();
  for (const [init, words] of cases) {
    await assert.rejects(mountErofs({ target, ...init }), (error) => {
      assert.ok(hasCode(error, 'MOUNT_FAILED'), String(error));
      assert.match(error.message, words);
      return typeof error.context.errno === 'number';
    });
  }
  assert.deepEqual(openFiles(), before);
  assert.equal(isMounted(target), false);
});

test('an aborted mount rejects with the reason and leaves nothing mounted', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 1);
  const target = lab.dir('mnt');
  const reason = new Error('changed my mind');
  await assert.rejects(mountErofs({ ...paths, target, signal: AbortSignal.abort(reason) }), reason);
  const late = new AbortController();
  const mounting = mountErofs({ ...paths, target, signal: late.signal });
  late.abort(reason);
  await assert.rejects(mounting, reason);
  // the next mount runs after the abandoned one, so nothing can still appear
  const next = await mountErofs({ ...paths, target: lab.dir('next') });
  await next.unmount();
  assert.equal(isMounted(target), false);
});

test('setuid bits count on the mount', { skip, timeout: TIMEOUT }, async () => {
  using lab = new Lab();
  const { contents: _, ...paths } = writeImage(lab.at('image'), 1);
  const mounted = await mountErofs({ ...paths, target: lab.dir('mnt') });
  assert.equal(statSync(join(mounted.target, 'f0')).mode & 0o7777, 0o4755);
  const flags = execFileSync('findmnt', ['-no', 'VFS-OPTIONS', mounted.target], { encoding: 'utf8' }).trim();
  assert.equal(flags, 'ro,relatime');
  await mounted.unmount();
});

test('tells how far the kernel reads ahead on the disk of a path, and nothing where there is no disk', () => {
  const kib = diskReadAheadKb('/var/tmp');
  assert.ok(kib === undefined || (Number.isInteger(kib) && kib >= 0), String(kib));
  assert.equal(diskReadAheadKb('/proc'), undefined);
});
