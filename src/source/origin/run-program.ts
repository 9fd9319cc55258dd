import { spawn } from 'node:child_process';
import { ShoalError } from '../../errors.ts';

/** A program that prints credentials, and how it is run. */
export interface ProgramCall {
  readonly command: string;
  readonly args: readonly string[];
  readonly input: string;
  /** On top of this process's own. */
  readonly env?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** How it ended and what it printed. */
export interface ProgramResult {
  readonly code: number | null;
  readonly output: string;
}

const MAX_OUTPUT_CHARS = 64 * 1024;

/**
 * Runs a program with text on its standard input and gives its standard output; standard error is dropped, for nobody
 * knows what it holds. Throws CONFIG_INVALID when it cannot be run, prints too much, takes too long or is cancelled.
 */
export function runProgram(call: ProgramCall): Promise<ProgramResult> {
  const { command, args, input, env, timeoutMs, signal } = call;
  return new Promise((resolve, reject) => {
    const name = command.replace(/^.*\//, '');
    const fail = (why: string, cause?: unknown): void =>
      reject(new ShoalError('CONFIG_INVALID', `${name} ${why}`, { cause }));
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'ignore'],
      killSignal: 'SIGKILL',
      ...(env === undefined ? {} : { env: { ...process.env, ...env } }),
    });
    let output = '';
    const stop = (why: string): void => {
      child.kill('SIGKILL');
      // A grandchild may keep the pipe open; nobody reads it any more.
      child.stdout.destroy();
      fail(why);
    };
    const timer = setTimeout(() => stop(`did not answer within ${timeoutMs} ms`), timeoutMs);
    const onAbort = (): void => stop('was cancelled');
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > MAX_OUTPUT_CHARS) stop('prints too much');
    });
    child.stdin.on('error', () => {}); // It may exit without reading.
    child.stdin.end(input);
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    };
    child.once('error', (cause) => {
      done();
      fail('could not be run', cause);
    });
    child.once('close', (code) => {
      done();
      resolve({ code, output });
    });
  });
}
