import { spawn } from 'node:child_process';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CANARY_FOLDER, type CanaryReport, readCanaryReport } from '../test/canary/records.ts';
import type { TestResult } from './event-reporter.ts';

const REPORTER = fileURLToPath(new URL('./event-reporter.ts', import.meta.url));
/** Looks for secrets of tests where they should not be, in every process of a test file. */
const WATCH = new URL('../test/canary/watch.ts', import.meta.url).href;

/** Bytes of a test file's own output that are kept to be shown when it fails. */
const OUTPUT_KEPT = 64 * 1024;

/** How a group of test files is run. */
export interface TestGroup {
  readonly name: string;
  readonly files: readonly string[];
  /** Files at the same time. */
  readonly concurrency: number;
  /** Longest a single test may take. */
  readonly testTimeoutMs: number;
  /** Longest a file may take; then it and its children are killed, and the file counts as failed. */
  readonly fileTimeoutMs: number;
}

/** What a test file came to. */
export interface FileResult {
  readonly file: string;
  readonly tests: readonly TestResult[];
  readonly elapsedMs: number;
  /** Standard output and error, its last part. */
  readonly output: string;
  /** What became of the secrets it used. */
  readonly canaries: CanaryReport;
}

/** Files that need privileges, daemons and mounts, one after the other; the rest is safe to run side by side. */
const SEQUENTIAL = ['test/e2e/', 'test/faults/'];

/** The groups, made of the test files below `root` whose path contains one of `patterns` (all when empty). */
export function findGroups(root: string, patterns: readonly string[]): TestGroup[] {
  const files = globSync('test/**/*.test.ts', { cwd: root })
    .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
    .sort();
  const isSequential = (file: string): boolean => SEQUENTIAL.some((folder) => file.startsWith(folder));
  const minutes = 60_000;
  return [
    {
      name: 'unit and suites',
      files: files.filter((file) => !isSequential(file)),
      concurrency: 2,
      testTimeoutMs: 2 * minutes,
      fileTimeoutMs: 5 * minutes,
    },
    {
      name: 'end to end and faults',
      files: files.filter(isSequential),
      concurrency: 1,
      testTimeoutMs: 10 * minutes,
      fileTimeoutMs: 30 * minutes,
    },
  ].filter((group) => group.files.length > 0);
}

/** Runs a group; `onFile` hears of each file as it ends. */
export async function runGroup(group: TestGroup, root: string, onFile: (result: FileResult) => void): Promise<void> {
  const waiting = [...group.files];
  const worker = async (): Promise<void> => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      onFile(await runFile(file, group, root));
    }
  };
  await Promise.all(Array.from({ length: group.concurrency }, worker));
}

/** Runs one test file in a process group of its own, so that its deadline also ends what it started. */
export async function runFile(
  file: string,
  limits: Pick<TestGroup, 'testTimeoutMs' | 'fileTimeoutMs'>,
  root: string,
): Promise<FileResult> {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-test-'));
  const events = join(folder, 'events');
  const sightings = join(folder, 'canaries');
  mkdirSync(sightings);
  const startedMs = performance.now();
  try {
    const args = [`--test-reporter=${REPORTER}`, `--test-reporter-destination=${events}`];
    const child = spawn(process.execPath, [...args, `--test-timeout=${limits.testTimeoutMs}`, file], {
      cwd: root,
      detached: true,
      // Set when this runs in a test itself: the file would then report to that test's runner, not to ours.
      env: {
        ...process.env,
        NODE_TEST_CONTEXT: undefined,
        NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import=${WATCH}`,
        [CANARY_FOLDER]: sightings,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const killGroup = (): void => endGroup(child.pid);
    const signals = ['SIGINT', 'SIGTERM', 'exit'] as const;
    for (const signal of signals) process.once(signal, killGroup);
    let output = '';
    const keep = (data: Buffer): void => {
      output = (output + data.toString()).slice(-OUTPUT_KEPT);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killGroup();
    }, limits.fileTimeoutMs);
    const status = await new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('exit', (code, signal) => resolve(code === null ? `signal ${signal}` : `status ${code}`));
    });
    clearTimeout(timer);
    for (const signal of signals) process.off(signal, killGroup);
    const tests = readEvents(events);
    const trouble = fileTrouble(tests, late ? `was still running after ${limits.fileTimeoutMs} ms` : status);
    if (trouble !== undefined) tests.push({ name: 'the file itself', outcome: 'failed', detail: trouble });
    const canaries = readCanaryReport(sightings);
    for (const leak of canaries.leaks) {
      tests.push({ name: 'secrets stay where they belong', outcome: 'failed', detail: `one was seen ${leak}` });
    }
    return { file, tests, elapsedMs: performance.now() - startedMs, output, canaries };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What is wrong with a file beyond its failed tests; undefined when nothing is. */
function fileTrouble(tests: readonly TestResult[], status: string): string | undefined {
  if (status !== 'status 0' && !tests.some((test) => test.outcome === 'failed')) return `ended: ${status}`;
  return tests.length === 0 ? 'holds no tests' : undefined;
}

function readEvents(path: string): TestResult[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  lines.pop(); // what follows the last newline: nothing, or a line that a kill cut short
  return lines.map((line) => JSON.parse(line) as TestResult);
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // already gone
  }
}
