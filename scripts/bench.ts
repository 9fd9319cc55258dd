/** `npm run bench -- NAME [ARGS…]`: runs test/bench/NAME.ts; without a name, lists them. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';

const [name, ...rest] = process.argv.slice(2);
const known = readdirSync('test/bench')
  .filter((file) => file.endsWith('.ts'))
  .map((file) => file.slice(0, -'.ts'.length))
  .sort();

if (name !== undefined && known.includes(name)) {
  const bench = spawnSync(process.execPath, ['--expose-gc', `test/bench/${name}.ts`, ...rest], { stdio: 'inherit' });
  process.exitCode = bench.status ?? 1;
} else {
  if (name !== undefined) process.stderr.write(`no benchmark is called ${name}\n`);
  process.stdout.write(`usage: npm run bench -- NAME\nbenchmarks: ${known.join(' ')}\n`);
  process.exitCode = name === undefined ? 0 : 2;
}
