import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../lab/process.ts';

const LAB = fileURLToPath(new URL('./forbidden-lab.ts', import.meta.url));
const skip = process.geteuid?.() === 0 ? false : 'needs root';

interface Report {
  readonly urls: number;
  readonly addresses: number;
  readonly reachable: number;
  readonly refusals: number;
  readonly surprises: readonly string[];
  readonly touched: readonly string[];
}

test('nothing a registry says or resolves to leads to a forbidden place (S7)', { skip, timeout: 120_000 }, async () => {
  const name = `shoal-s7-${process.pid}`;
  await run('ip', ['netns', 'add', name]);
  try {
    const inside = (...command: string[]) => run('ip', ['netns', 'exec', name, ...command], { timeoutMs: 100_000 });
    await inside('ip', 'link', 'set', 'lo', 'up');
    // Every address is ours, so that whatever is let through arrives.
    await inside('ip', 'route', 'add', 'local', '0.0.0.0/0', 'dev', 'lo');
    await inside('ip', '-6', 'route', 'add', 'local', '::/0', 'dev', 'lo');
    const { stdout } = await inside(process.execPath, LAB);
    const report = JSON.parse(stdout) as Report;
    assert.ok(
      report.reachable >= report.addresses - 4,
      `${report.reachable} of ${report.addresses} can be reached at all`,
    );
    assert.ok(report.urls >= 200, `${report.urls} targets`);
    assert.deepEqual(report.surprises, []);
    assert.deepEqual(report.touched, [], 'connections to forbidden places');
    assert.ok(report.refusals >= 4 * report.urls, `${report.refusals} refusals`);
  } finally {
    await run('ip', ['netns', 'del', name]);
  }
});
