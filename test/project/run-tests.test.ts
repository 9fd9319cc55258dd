import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { findGroups, runFile } from '../../scripts/run-tests.ts';

const LIMITS = { testTimeoutMs: 10_000, fileTimeoutMs: 10_000 };

/** A killed orphan may stay a zombie until whoever adopted it looks. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function run(t: TestContext, body: string, limits = LIMITS) {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-runner-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'x.test.mjs'), `import { describe, it, test } from 'node:test';\n${body}`);
  const result = await runFile('x.test.mjs', limits, folder);
  return { ...result, summary: result.tests.map(({ name, outcome }) => `${outcome} ${name}`) };
}

test('tests are counted once each, in suites or not', async (t) => {
  const { summary } = await run(t, "test('a', () => {}); describe('s', () => { it('b', () => {}); });");
  assert.deepEqual(summary, ['passed a', 'passed s > b']);
});

test('a skip is seen with its reason, wherever it was written', async (t) => {
  const { tests } = await run(
    t,
    "test('a', { skip: 'needs root' }, () => {}); test('b', (t) => t.skip('needs runc')); describe('s', { skip: 'needs fuse' }, () => { it('c', () => {}); });",
  );
  assert.deepEqual(
    tests.map(({ outcome, detail }) => `${outcome} ${detail}`),
    ['skipped needs root', 'skipped needs runc', 'skipped needs fuse'],
  );
});

test('a failing test fails once, with its stack, and not again as its suite', async (t) => {
  const { tests, output } = await run(
    t,
    "describe('s', () => { it('f', () => { console.log('clue'); throw new Error('boom'); }); });",
  );
  assert.deepEqual(
    tests.map(({ name, outcome }) => `${outcome} ${name}`),
    ['failed s > f'],
  );
  assert.match(tests[0]?.detail ?? '', /Error: boom\n\s+at /);
  assert.match(output, /clue/);
});

test('a file that ends badly, throws at once or holds no tests is a failure of its own', async (t) => {
  const crash = await run(t, "test('a', () => {}); process.on('exit', () => { process.exitCode = 3; });");
  assert.deepEqual(crash.summary, ['passed a', 'failed the file itself']);
  assert.equal((await run(t, 'throw new Error("early");')).tests.at(-1)?.outcome, 'failed');
  assert.deepEqual((await run(t, '')).summary, ['failed the file itself']);
});

test('a file that never ends is killed with what it started', async (t) => {
  const body = `
    import { spawn } from 'node:child_process';
    test('a', () => { console.log('pid', spawn('sleep', ['1000'], { stdio: 'ignore' }).pid); });`;
  const { summary, output } = await run(t, body, { testTimeoutMs: 60_000, fileTimeoutMs: 6_000 });
  assert.equal(summary.at(-1), 'failed the file itself');
  const pid = Number(/pid (\d+)/.exec(output)?.[1]);
  assert.ok(pid > 0);
  for (let tries = 0; isRunning(pid) && tries < 100; tries += 1) await setTimeout(20);
  assert.equal(isRunning(pid), false);
});

test('end-to-end and fault files run one at a time, after everything else', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-runner-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const file of ['core/a', 'e2e/b', 'faults/c', 'suites/d-suite']) {
    mkdirSync(join(folder, 'test', file, '..'), { recursive: true });
    writeFileSync(join(folder, 'test', `${file}.test.ts`), '');
  }
  const groups = findGroups(folder, []);
  assert.deepEqual(
    groups.map(({ files, concurrency }) => [concurrency, ...files]),
    [
      [2, 'test/core/a.test.ts', 'test/suites/d-suite.test.ts'],
      [1, 'test/e2e/b.test.ts', 'test/faults/c.test.ts'],
    ],
  );
  assert.deepEqual(
    findGroups(folder, ['faults']).map(({ files }) => files),
    [['test/faults/c.test.ts']],
  );
});
