import { closeSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createControlClient } from '../control/client.ts';
import { ShoalError } from '../errors.ts';
import type { Command } from './command.ts';
import { EXIT, UsageError } from './exit-code.ts';

/** Real time between two questions for new lines, ms. */
const TAKE_MS = 250;

/** `shoal trace`: the cold reads of a real start, for `shoal sim`. */
export const traceCommand: Command = {
  name: 'trace',
  args: 'record FILE',
  argCount: { min: 2, max: 2 },
  summary: 'record the cold reads of a real container start, for shoal sim',
  description:
    'Records the cold reads that the daemon answers, one JSON line each: image, layer, chunk, time, think time; at\nthe end what processors did meanwhile. Ends when interrupted, or after --seconds. Start a container on an idle node that\nhas nothing of its image meanwhile. The file is what a scenario names as image.NAME.trace.',
  options: {
    image: { type: 'string', value: 'REF', description: 'only reads of this image' },
    seconds: { type: 'string', value: 'N', description: 'end after so long' },
  },
  async run({ args, options, io, signal, config }) {
    const [action, path] = args as [string, string];
    if (action !== 'record') throw new UsageError(`expected record, got ${action}`, 'trace');
    const seconds = typeof options.seconds === 'string' ? Number(options.seconds) : Number.POSITIVE_INFINITY;
    if (!(seconds > 0))
      throw new UsageError(`--seconds must be a number above 0, got ${String(options.seconds)}`, 'trace');
    const client = createControlClient({ socket: config().control.socket });
    const image = typeof options.image === 'string' ? { image: options.image } : {};
    const call = async (what: 'start' | 'take' | 'stop'): Promise<readonly unknown[]> =>
      ((await client.call('POST', '/v1/trace', { do: what, ...image })) as { lines: readonly unknown[] }).lines;
    const file = openTrace(path);
    let count = 0;
    const write = (lines: readonly unknown[]): number => {
      if (lines.length > 0) writeSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
      count += lines.length;
      return lines.length;
    };
    try {
      await call('start');
      io.err('recording; end it with Ctrl-C\n');
      const deadline = performance.now() + 1_000 * seconds;
      while (!signal.aborted && performance.now() < deadline) {
        await sleep(TAKE_MS);
        write(await call('take'));
      }
      while (write(await call('take')) > 0);
      write(await call('stop'));
    } finally {
      closeSync(file);
    }
    io.out(`${count} lines in ${path}\n`);
    return EXIT.ok;
  },
};

function openTrace(path: string): number {
  try {
    return openSync(path, 'w', 0o600);
  } catch (cause) {
    throw new ShoalError('STORE_IO', `${path} can't be written: ${(cause as Error).message}`, { cause });
  }
}
