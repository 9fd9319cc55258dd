/**
 * `npm run bench -- NAME [ARGS…]`: runs test/bench/NAME.ts; without a name, lists them. Whatever ends a benchmark, what
 * it started and mounted is taken away afterwards.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { sweepDeadLabs } from '../test/lab/lab-name.ts';

const [name, ...rest] = process.argv.slice(2);
const known = readdirSync('test/bench')
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length))
  .sort();

if (name !== undefined && known.includes(name)) {
  process.exitCode = await run(name, rest);
} else {
  if (name !== undefined) process.stderr.write(`no benchmark is called ${name}\n`);
  process.stdout.write(`usage: npm run bench -- NAME\nbenchmarks: ${known.join(' ')}\n`);
  process.exitCode = name === undefined ? 0 : 2;
}

async function run(bench: string, args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, ['--expose-gc', `test/bench/${bench}.ts`, ...args], { stdio: 'inherit' });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal));
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  await sweepDeadLabs();
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}
