import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { test } from 'node:test';
import { remainsOf } from '../../lab/lab-name.ts';

const isRoot = process.getuid?.() === 0;
const FOLDER = new URL('work-folder.ts', import.meta.url).href;
const BENCH = `
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { claimFolder } from ${JSON.stringify(FOLDER)};
const { dir } = await claimFolder();
spawn('sh', ['-c', 'sleep 600; : ' + dir + '/daemon'], { detached: true, stdio: 'ignore' }).unref();
mkdirSync(dir + '/mnt');
spawnSync('mount', ['-t', 'tmpfs', 'none', dir + '/mnt']);
console.log(dir);
setInterval(() => {}, 1000);`;

for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  test(`a benchmark that gets ${signal} leaves no process, no mount and no file`, {
    skip: isRoot ? false : 'needs root',
  }, async () => {
    const bench = spawn(process.execPath, ['--input-type=module', '-e', BENCH], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const [line] = (await once(bench.stdout, 'data')) as [Buffer];
    const dir = String(line).trim();
    const remains = await remainsOf(basename(dir));
    assert.equal(remains.length, 2, 'a mount and a process are there');
    bench.kill(signal);
    assert.deepEqual(await once(bench, 'exit'), [code, null]);
    assert.deepEqual(await remainsOf(basename(dir)), []);
    assert.equal(existsSync(dir), false);
  });
}
