/**
 * Cold sequential read of a 512 MiB file through each trap: a real registry on loopback, a layer that ctr-remote made,
 * the built daemon, `dd bs=1M` in a process of its own. `npm run bench -- cold-sequential [--runs N] [--source]`
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { BIG_BYTES, bigImage } from './support/images.ts';
import { processUsage } from './support/process-usage.ts';
import { buildRelease, median } from './support/release.ts';
import { warmMemory } from './support/warm-memory.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '3' },
    source: { type: 'boolean', default: false },
    traps: { type: 'string', default: 'fanotify,fuse' },
  },
});
const TRAPS = values.traps.split(',');
const program = values.source ? undefined : await buildRelease();
const image = await bigImage();
const folder = await claimFolder();
const work = folder.dir;

interface Sample {
  readonly readMBs: number;
  readonly cpuSeconds: number;
  readonly peakRssMiB: number;
}

async function sample(host: string, trap: string, name: string): Promise<Sample> {
  const dir = join(work, name);
  const at = join(dir, 'mnt');
  await mkdir(at, { recursive: true });
  const config = `[registry."${host}"]\nplain_http = true\nallow_private = true\n[trap]\nkind = "${trap}"\n`;
  const shoal = await startShoal({ dir, config, ...(program === undefined ? {} : { program }) });
  try {
    await shoal.post('/v1/mounts', { reference: `${host}/${image.estargz}`, directory: at });
    await warmMemory(work);
    await run('sync', []);
    const { stderr } = await run('dd', [`if=${join(at, 'big')}`, 'of=/dev/null', 'bs=1M']);
    const seconds = Number(/copied, ([\d.]+(?:e-\d+)?) s/.exec(stderr)?.[1]);
    const { cpuSeconds, peakRssMiB } = processUsage(shoal.daemon.pid);
    return { readMBs: BIG_BYTES / 1e6 / seconds, cpuSeconds, peakRssMiB };
  } finally {
    await shoal.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

try {
  const registry = await startRegistry({ workDir: join(work, 'r'), storage: image.storage });
  const samples = new Map<string, Sample[]>(TRAPS.map((trap) => [trap, []]));
  try {
    for (let index = 0; index < Number(values.runs); index += 1) {
      for (const trap of TRAPS) samples.get(trap)?.push(await sample(registry.host, trap, `${trap}${index}`));
    }
  } finally {
    await registry.stop();
  }
  console.log('trap        MB/s: runs, median        daemon CPU s   daemon peak RSS MiB');
  for (const [trap, taken] of samples) {
    const rates = taken.map(({ readMBs }) => readMBs);
    const cpu = median(taken.map(({ cpuSeconds }) => cpuSeconds));
    const rss = median(taken.map(({ peakRssMiB }) => peakRssMiB));
    const shown = `${rates.map((rate) => rate.toFixed(0)).join(' ')}  median ${median(rates).toFixed(0)}`;
    console.log(`${trap.padEnd(11)} ${shown.padEnd(26)} ${cpu.toFixed(2).padStart(12)} ${rss.toFixed(0).padStart(21)}`);
  }
} finally {
  await folder.close();
}
