import assert from 'node:assert/strict';
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import type { StatusReport } from '../../src/control/status.ts';
import { type CommandResult, run, waitFor } from '../lab/process.ts';
import { freePort, startRegistry } from '../lab/registry.ts';
import { SHOAL_MAIN } from '../lab/shoal.ts';
import { labImages, mountsBelow, processesOf, whyNot, withDirectory } from './node-lab.ts';

const skip = await whyNot('docker-registry');

/** `shoal COMMAND` with all its state below `dir`. */
type Shoal = (...args: string[]) => Promise<CommandResult>;

test('an image is mounted, read and unmounted without containerd', { skip }, async (t) => {
  const images = await labImages();
  await withDirectory(async (dir) => {
    await using registry = await disposableRegistry(dir, images.storage);
    const shoal = shoalIn(dir);
    const image = `${registry.host}/${images.estargz}`;
    const [first, second] = [join(dir, 'first'), join(dir, 'second')];
    for (const target of [first, second]) await mkdir(target);

    await t.test('without a daemon, status and umount say so', async () => {
      for (const args of [['status'], ['umount', first]]) {
        const result = await shoal(...args);
        assert.equal(result.status, 69, result.stderr);
        assert.match(oneLine(result), /^shoal: UNAVAILABLE: .*ctl\.sock/);
      }
    });

    await t.test('what makes no sense is refused before a daemon is started', async () => {
      const bad = await shoal('mount', 'Not A Reference', first);
      assert.equal(bad.status, 1);
      assert.match(oneLine(bad), /^shoal: INVALID_REFERENCE: /);
      const missing = await shoal('mount', image, join(dir, 'nowhere'));
      assert.equal(missing.status, 1);
      assert.match(oneLine(missing), /^shoal: NOT_FOUND: .*nowhere does not exist/);
      assert.equal((await shoal('mount', image)).status, 2);
      assert.deepEqual(await processesOf(join(dir, 'root')), []);
    });

    await t.test('mount starts a daemon and shows the tree', async () => {
      const mounted = await shoal('mount', image, first);
      assert.equal(mounted.status, 0, mounted.stderr);
      assert.equal(mounted.stdout.split('\n').length, 2);
      assert.match(mounted.stdout, /^mounted 127\.0\.0\.1:\d+\/library\/debian-python:esgz@sha256:[0-9a-f]{12} at /);
      const names = (await run('ls', [first])).stdout.split('\n');
      for (const name of ['bin', 'etc', 'srv', 'usr']) assert.ok(names.includes(name), name);
      assert.match((await run('cat', [join(first, 'etc/debian_version')])).stdout, /^\d+\.\d+\n$/);
      assert.match((await run('cat', [join(first, 'srv/app/hello.py')])).stdout, /^import json, sys\n/);
      await assert.rejects(run('ls', [join(first, 'usr/share/doc')]), /No such file/);
      await assert.rejects(run('touch', [join(first, 'new')]), /Read-only file system/);
    });

    await t.test('status tells of it, for people and as JSON', async () => {
      const report = JSON.parse((await shoal('status', '--json')).stdout) as StatusReport;
      assert.deepEqual(
        report.mounts.map(({ reference, directory }) => [reference, directory]),
        [[image, first]],
      );
      assert.ok(report.fetchedBytes > 0);
      assert.match((await shoal('status')).stdout, /debian-python:esgz/);
    });

    await t.test('a taken directory, an unknown image: one line, and nothing changes', async () => {
      const before = (await mountsBelow(dir)).length;
      const cases: [image: string, target: string, line: RegExp][] = [
        [image, first, /^shoal: ALREADY_EXISTS: .*first holds an image already/],
        [`${registry.host}/library/none:1`, second, /^shoal: NOT_FOUND: .*library\/none:1/],
        [`127.0.0.1:${await freePort()}/library/none:1`, second, /^shoal: SOURCE_FAILED: .*ECONNREFUSED/],
      ];
      for (const [reference, target, line] of cases) {
        const result = await shoal('mount', reference, target);
        assert.equal(result.status, 1, reference);
        assert.match(oneLine(result), line);
      }
      assert.equal((await mountsBelow(dir)).length, before);
      const unknown = await shoal('umount', second);
      assert.equal(unknown.status, 1);
      assert.match(oneLine(unknown), /^shoal: NOT_FOUND: /);
    });

    await t.test('the daemon ends with its last mount', async () => {
      assert.equal((await shoal('mount', image, second)).status, 0);
      assert.equal((await shoal('umount', first)).stdout, `unmounted ${first}\n`);
      assert.deepEqual(await readdir(first), []);
      assert.ok((await run('ls', [join(second, 'etc')])).stdout.includes('debian_version'));
      assert.equal((await shoal('umount', second)).status, 0);
      await waitFor('the end of the daemon', async () => (await processesOf(join(dir, 'root'))).length === 0);
      assert.deepEqual(await mountsBelow(dir), []);
    });

    await t.test('a daemon that was started for an image that cannot be mounted ends too', async () => {
      assert.equal((await shoal('mount', `${registry.host}/library/none:1`, first)).status, 1);
      await waitFor('the end of the daemon', async () => (await processesOf(join(dir, 'root'))).length === 0);
    });

    await t.test('mounting again reads what was fetched before', async () => {
      assert.equal((await shoal('mount', image, first)).status, 0);
      assert.match((await run('cat', [join(first, 'etc/debian_version')])).stdout, /^\d+\.\d+\n$/);
      const report = JSON.parse((await shoal('status', '--json')).stdout) as StatusReport;
      assert.equal(report.fetchedBytes, 0);
      assert.equal((await shoal('umount', first)).status, 0);
      await waitFor('the end of the daemon', async () => (await processesOf(join(dir, 'root'))).length === 0);
    });
  });
});

function shoalIn(dir: string): Shoal {
  const flags = ['--root', join(dir, 'root'), '--socket', join(dir, 's.sock'), '--control', join(dir, 'ctl.sock')];
  return (command, ...args) =>
    run(process.execPath, [SHOAL_MAIN, command as string, ...args, ...flags], { allowFailure: true });
}

/** The last line of stderr; there may be one more before it, about the daemon that was started. */
function oneLine({ stdout, stderr }: CommandResult): string {
  assert.equal(stdout, '');
  const lines = stderr
    .trimEnd()
    .split('\n')
    .filter((line) => !line.startsWith('no daemon answers'));
  assert.equal(lines.length, 1, stderr);
  return lines[0] as string;
}

async function disposableRegistry(dir: string, storage: string) {
  const registry = await startRegistry({ workDir: dir, storage });
  return { host: registry.host, [Symbol.asyncDispose]: () => registry.stop() };
}
