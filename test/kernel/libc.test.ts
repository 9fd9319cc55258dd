import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { hasCode } from '../../src/errors.ts';
import {
  AT_FDCWD,
  closeRaw,
  ERRNO,
  errnoName,
  getrlimitNofile,
  O,
  openFd,
  openRaw,
  pollRaw,
  readRaw,
  setInherited,
  setrlimitNofile,
  syscall,
  syscallAsync,
  syscallRaw,
  syscallRawAsync,
  writeRaw,
} from '../../src/kernel/libc.ts';
import { syscallNumbers } from '../../src/kernel/syscall-numbers.ts';

const folder = mkdtempSync(join(tmpdir(), 'shoal-libc-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const FD_CLOEXEC = 1;
const F_GETFD = 1;

test('errno numbers have the names the C library gives them', () => {
  for (const [name, number] of Object.entries(constants.errno)) {
    if (['EWOULDBLOCK', 'ENOTSUP'].includes(name)) continue; // aliases
    assert.equal(errnoName(number), name);
  }
  for (const [name, number] of Object.entries(ERRNO)) assert.equal(errnoName(number), name);
  assert.equal(errnoName(15), 'ENOTBLK');
  assert.equal(errnoName(133), 'EHWPOISON');
  assert.equal(errnoName(41), 'errno 41');
  assert.equal(errnoName(9999), 'errno 9999');
});

const HEADERS = {
  x64: ['/usr/include/x86_64-linux-gnu/asm/unistd_64.h'],
  arm64: ['/usr/include/asm-generic/unistd.h'],
};
for (const [arch, paths] of Object.entries(HEADERS)) {
  const path = paths.find((candidate) => existsSync(candidate));
  test(`system call numbers of ${arch} are those of the kernel headers`, {
    skip: path === undefined && 'no headers',
  }, () => {
    const header = readFileSync(path as string, 'utf8');
    for (const [name, number] of Object.entries(syscallNumbers(arch))) {
      const found = new RegExp(`#define __NR(?:3264)?_${name}\\s+(\\d+)`).exec(header)?.[1];
      if (found === undefined)
        assert.ok(number >= 434, `${name} is not in ${path}`); // newer than the headers
      else assert.equal(number, Number(found), name);
    }
  });
}

test('an architecture without a table is refused', () => {
  assert.throws(
    () => syscallNumbers('riscv64'),
    (error) => hasCode(error, 'KERNEL_CALL'),
  );
});

test('a failed call throws KERNEL_CALL with errno, its raw form returns -errno, on the thread and on the pool', async () => {
  const absent = join(folder, 'absent');
  assert.throws(
    () => openFd(absent, O.RDONLY),
    (error) => {
      return hasCode(error, 'KERNEL_CALL') && error.context.errno === ERRNO.ENOENT && error.message.includes(absent);
    },
  );
  assert.equal(openRaw(absent, O.RDONLY), -ERRNO.ENOENT);
  assert.throws(() => syscall('close', -1), /^ShoalError: close: EBADF$/);
  assert.equal(await syscallRawAsync('close', -1), -ERRNO.EBADF);
  await assert.rejects(syscallAsync('openat', AT_FDCWD, absent, 0, 0), /openat: ENOENT/);
  assert.equal(readRaw(-1, new Uint8Array(1)), -ERRNO.EBADF);
  assert.equal(writeRaw(-1, new Uint8Array(1)), -ERRNO.EBADF);
});

test('many calls at once on the pool each get their own errno', async () => {
  const calls = Array.from({ length: 40 }, (_, index) =>
    index % 2 === 0 ? syscallRawAsync('close', -1) : syscallRawAsync('openat', AT_FDCWD, join(folder, 'absent'), 0, 0),
  );
  const results = await Promise.all(calls);
  assert.deepEqual(
    results,
    results.map((_, index) => (index % 2 === 0 ? -ERRNO.EBADF : -ERRNO.ENOENT)),
  );
});

test('a path with a NUL is refused rather than cut', () => {
  assert.throws(
    () => openRaw('/etc\0/x', O.RDONLY),
    (error) => hasCode(error, 'INVALID_ARGUMENT'),
  );
});

test('bytes go through descriptors', () => {
  const fd = openFd(join(folder, 'file'), O.RDWR | O.CREAT, 0o600);
  assert.equal(writeRaw(fd, Buffer.from('hello')), 5);
  const again = openFd(join(folder, 'file'), O.RDONLY);
  const into = Buffer.alloc(8);
  assert.equal(readRaw(again, into), 5);
  assert.equal(into.toString('latin1', 0, 5), 'hello');
  assert.equal(readRaw(again, into), 0);
  for (const each of [fd, again]) assert.equal(closeRaw(each), 0);
  assert.equal(closeRaw(fd), -ERRNO.EBADF);
});

test('descriptors are closed on exec unless they are meant to be inherited', () => {
  const fd = openFd('/dev/null', O.RDONLY);
  assert.equal(syscallRaw('fcntl', fd, F_GETFD, 0), FD_CLOEXEC);
  setInherited(fd, true);
  assert.equal(syscallRaw('fcntl', fd, F_GETFD, 0), 0);
  setInherited(fd, false);
  assert.equal(syscallRaw('fcntl', fd, F_GETFD, 0), FD_CLOEXEC);
  closeRaw(fd);
});

test('poll tells a readable descriptor from a silent one', () => {
  const POLLIN = 1;
  const fds = Buffer.alloc(8);
  const fd = openFd('/dev/zero', O.RDONLY);
  fds.writeInt32LE(fd, 0);
  fds.writeInt16LE(POLLIN, 4);
  assert.equal(pollRaw(fds, 0), 1);
  assert.equal(fds.readInt16LE(6), POLLIN);
  fds.writeInt32LE(-1, 0);
  assert.equal(pollRaw(fds, 5), 0);
  closeRaw(fd);
});

test('the limit of open files is raised and never lowered', () => {
  const script = `
    import { getrlimitNofile, setrlimitNofile } from ${JSON.stringify(import.meta.resolve('../../src/kernel/libc.ts'))};
    console.log(JSON.stringify([getrlimitNofile(), setrlimitNofile(900), setrlimitNofile(100), setrlimitNofile(1200)]));`;
  const sh = 'ulimit -Sn 500; ulimit -Hn 1000; exec "$0" --input-type=module -e "$1"';
  const shown = execFileSync('sh', ['-c', sh, process.execPath, script], { encoding: 'utf8' });
  const [before, raised, kept, most] = JSON.parse(shown);
  assert.deepEqual(kept, raised);
  assert.equal(most.soft, most.hard);
  assert.ok(most.soft === 1200 || most.soft === 1000, 'the hard limit rises for root only');
  assert.ok(before.soft <= raised.soft && raised.soft >= 900);
  assert.deepEqual(getrlimitNofile(), setrlimitNofile(1));
});
