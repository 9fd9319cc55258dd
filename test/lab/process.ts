import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** What a finished command left behind. */
export interface CommandResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number;
}

/** Runs a command to its end; throws with the tail of its stderr when it fails, unless `allowFailure`. */
export async function run(
  command: string,
  args: readonly string[],
  options: {
    cwd?: string;
    env?: Record<string, string>;
    timeoutMs?: number;
    allowFailure?: boolean;
    input?: string;
  } = {},
): Promise<CommandResult> {
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // A command that ends without reading its input is not at fault.
  child.stdin.on('error', () => {});
  child.stdin.end(options.input ?? '');
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (bytes: Buffer) => out.push(bytes));
  child.stderr.on('data', (bytes: Buffer) => err.push(bytes));
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 120_000);
  const status = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  }).finally(() => clearTimeout(timer));
  const result = { stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString(), status };
  if (status !== 0 && options.allowFailure !== true) {
    throw new Error(`${command} ${args.join(' ')} ended with ${status}: ${result.stderr.slice(-1500)}`);
  }
  return result;
}

/**
 * The command line that runs `command` in this network namespace, and else where we are: `ip netns exec` would give it
 * a mount namespace too, in which containerd and shoal could not see each other's mounts.
 */
export function inNetwork(netns: string | undefined, command: readonly string[]): [string, ...string[]] {
  const whole = netns === undefined ? command : ['nsenter', `--net=/run/netns/${netns}`, '--', ...command];
  return whole as [string, ...string[]];
}

/** A long-running process of the lab. */
export interface Daemon {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly logPath: string;
  /** Sends the signal and waits until the process is gone; SIGKILL after `graceMs`. */
  stop(signal?: NodeJS.Signals, graceMs?: number): Promise<number | null>;
  readonly exited: Promise<number | null>;
}

/** Starts a process in the background with its output in `logPath`. */
export function startDaemon(
  command: string,
  args: readonly string[],
  init: { logPath: string; env?: Record<string, string>; cwd?: string },
): Daemon {
  const log = createWriteStream(init.logPath, { flags: 'a' });
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...init.env },
    cwd: init.cwd,
  });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  const exited = new Promise<number | null>((resolve) => {
    child.on('error', () => resolve(null));
    child.on('exit', (code) => resolve(code));
  });
  void exited.then(() => log.end());
  return {
    child,
    pid: child.pid ?? -1,
    logPath: init.logPath,
    exited,
    async stop(signal = 'SIGTERM', graceMs = 15_000) {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      child.kill(signal);
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
      const code = await exited;
      clearTimeout(timer);
      return code;
    },
  };
}

/** Polls `check` until it gives something other than false, or throws after `timeoutMs` naming `what`. */
export async function waitFor<T>(
  what: string,
  check: () => Promise<T | false> | T | false,
  timeoutMs = 15_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let lastError: unknown;
  while (performance.now() < deadline) {
    try {
      const found = await check();
      if (found !== false) return found;
    } catch (error) {
      lastError = error;
    }
    await sleep(20);
  }
  throw new Error(`${what} did not come up within ${timeoutMs} ms${lastError === undefined ? '' : `: ${lastError}`}`);
}

/** Adds facts to an error for whoever reads the report of a failed test, which shows the stack. */
export function addToError(error: unknown, text: string): void {
  if (!(error instanceof Error)) return;
  error.message += text;
  error.stack = `${error.stack ?? error.message}${text}`;
}
