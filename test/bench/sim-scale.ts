/**
 * How the simulator's time and memory grow with the number of nodes: a flash crowd on an image of 1 GiB in chunks of
 * 1 MiB, which marks what a start reads, which is all of it. `npm run bench -- sim-scale [--nodes 100,300,1000] [--unit KIB]`;
 * each size runs in a process of its own, with the heap that `bin/shoal sim` has. Fails beyond 20 s of processor for
 * 1,000 nodes, 300 s for 10,000, 6 GiB.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { runPolicy } from '../../sim/run.ts';
import { type Override, parseScenario } from '../../sim/scenario/parse.ts';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '100,300,1000' },
    unit: { type: 'string' },
    one: { type: 'boolean', default: false },
  },
});
const HEAP = ['--max-semi-space-size=64', '--max-old-space-size=6144'];
const LIMIT_SECONDS: Readonly<Record<string, number>> = { 1000: 20, 10000: 300 };
const LIMIT_GIB = 6;
const CROWD = `title = "How does time grow?"
[nodes]
count = 100
[image.app]
size_mib = 1024
compressed = 0.45
[arrival.all]
image = "app"
[shoal]
hints = true
`;

interface Figures {
  readonly cpuSeconds: number;
  readonly gib: number;
  readonly events: number;
  readonly p99Seconds: number;
}

async function one(count: number): Promise<Figures> {
  const unit: Override[] = values.unit === undefined ? [] : [['simulation.unit_kib', Number(values.unit)]];
  const scenario = parseScenario(CROWD, { name: 'crowd.toml', overrides: [['nodes.count', count], ...unit] });
  const { events, startMs } = await runPolicy(scenario, 'shoal', {
    path: 'crowd.toml',
    signal: new AbortController().signal,
  });
  const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
  const cpuSeconds = (userCPUTime + systemCPUTime) / 1e6;
  return { cpuSeconds, gib: maxRSS / 1024 ** 2, events, p99Seconds: startMs.p99 / 1_000 };
}

if (values.one) {
  console.log(JSON.stringify(await one(Number(values.nodes))));
} else {
  console.log(' nodes   CPU, s   µs a chunk   events a chunk   memory, GiB   p99 start, s');
  for (const count of values.nodes.split(',')) {
    const own = [import.meta.filename, '--one', '--nodes', count];
    const unit = values.unit === undefined ? [] : ['--unit', values.unit];
    const child = spawnSync(process.execPath, [...HEAP, ...own, ...unit], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (child.status !== 0) throw new Error(`${count} nodes: exit ${child.status}`);
    const { cpuSeconds, gib, events, p99Seconds } = JSON.parse(child.stdout) as Figures;
    const chunks = 1_024 * Number(count);
    const columns = [
      count.padStart(6),
      cpuSeconds.toFixed(1).padStart(8),
      ((cpuSeconds * 1e6) / chunks).toFixed(1).padStart(12),
      (events / chunks).toFixed(2).padStart(16),
      gib.toFixed(2).padStart(13),
      p99Seconds.toFixed(2).padStart(14),
    ];
    console.log(columns.join(' '));
    if (cpuSeconds > (LIMIT_SECONDS[count] ?? Number.POSITIVE_INFINITY) || gib > LIMIT_GIB) process.exitCode = 1;
  }
}
