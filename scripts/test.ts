/**
 * `npm test [-- PATH_PART…]`: format, lint, types, import direction, unit tests and suites, privileged end-to-end tests.
 * With path parts only the matching test files run, without the static checks.
 * Exit code: 0 all well; 1 a check or a test failed; 2 no test file matches; 3 a test was skipped and CI is set.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type FileResult, findGroups, runGroup } from './run-tests.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

const CHECKS: readonly { name: string; command: readonly [string, ...string[]] }[] = [
  { name: 'format and lint', command: ['node_modules/.bin/biome', 'ci', '--error-on-warnings', '--colors=off'] },
  { name: 'types', command: ['node_modules/.bin/tsc', '--noEmit', '-p', 'tsconfig.json'] },
  { name: 'import direction', command: [process.execPath, 'scripts/check-imports.ts'] },
];

process.exitCode = await main(process.argv.slice(2));

async function main(patterns: readonly string[]): Promise<number> {
  const groups = findGroups(ROOT, patterns);
  if (groups.length === 0) {
    process.stderr.write(`no test file's path contains ${patterns.join(' or ')}\n`);
    return 2;
  }
  const failedChecks = patterns.length === 0 ? runChecks() : [];
  const results: FileResult[] = [];
  for (const group of groups) {
    print(`\n${group.name}: ${group.files.length} files`);
    await runGroup(group, ROOT, (result) => {
      results.push(result);
      printFile(result);
    });
  }
  return summarize(failedChecks, results, process.env.CI === 'true');
}

function runChecks(): string[] {
  const failed: string[] = [];
  for (const { name, command } of CHECKS) {
    const [program, ...args] = command;
    const done = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 26 });
    print(`${done.status === 0 ? 'ok  ' : 'FAIL'} ${name}`);
    if (done.status === 0) continue;
    print(`${done.error?.message ?? ''}${done.stdout ?? ''}${done.stderr ?? ''}`);
    failed.push(name);
  }
  return failed;
}

function count(result: FileResult, outcome: string): number {
  return result.tests.filter((test) => test.outcome === outcome).length;
}

function printFile(result: FileResult): void {
  const failed = count(result, 'failed');
  const skipped = count(result, 'skipped');
  const counts = [`${count(result, 'passed')} passed`];
  if (failed > 0) counts.push(`${failed} failed`);
  if (skipped > 0) counts.push(`${skipped} skipped`);
  const seconds = (result.elapsedMs / 1000).toFixed(1);
  print(`${failed === 0 ? 'ok  ' : 'FAIL'} ${result.file} (${counts.join(', ')}, ${seconds} s)`);
  if (failed === 0) return;
  for (const test of result.tests) {
    if (test.outcome === 'failed') print(`\n     ${test.name}\n${indent(test.detail)}`);
  }
  if (result.output.trim() !== '') print(`\n     its output:\n${indent(result.output.trimEnd())}\n`);
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `       ${line}`)
    .join('\n');
}

function summarize(failedChecks: readonly string[], results: readonly FileResult[], isCi: boolean): number {
  const total = { passed: 0, failed: failedChecks.length, skipped: 0 };
  const secrets = { used: 0, leaked: 0 };
  print('');
  for (const name of failedChecks) print(`failed:  ${name}`);
  for (const result of results) {
    secrets.used += result.canaries.used;
    secrets.leaked += result.canaries.leaks.length;
    for (const test of result.tests) {
      total[test.outcome] += 1;
      if (test.outcome === 'failed') print(`failed:  ${result.file}: ${test.name}`);
      if (test.outcome === 'skipped') print(`skipped: ${result.file}: ${test.name}: ${test.detail}`);
    }
  }
  if (total.skipped > 0 && isCi) print('CI is set: a skipped test is a failure');
  const { used, leaked } = secrets;
  print(`secrets of tests: sent ${used} times where they belong, seen ${leaked} times elsewhere`);
  print(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
  if (total.failed > 0) return 1;
  return total.skipped > 0 && isCi ? 3 : 0;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
