/**
 * Cold sequential read of a 512 MiB file through each trap: a real registry on loopback, the built daemon, `dd bs=1M` in a
 * process of its own. The layer is what ctr-remote made, or plain `tar.gz` whose index is at hand: of the layer nothing but
 * the index is on the node. `npm run bench -- cold-sequential [--format estargz|gzip] [--runs N] [--traps LIST]
 * [--source]`; NODE_OPTIONS reaches the daemon.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { StatusReport } from '../../src/control/status.ts';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { BIG_BYTES, bigImage } from './support/images.ts';
import { giveIndexes, makeIndexes } from './support/plain-indexes.ts';
import { processUsage } from './support/process-usage.ts';
import { buildRelease, median } from './support/release.ts';
import { warmMemory } from './support/warm-memory.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({
  options: {
    format: { type: 'string', default: 'estargz' },
    runs: { type: 'string', default: '3' },
    source: { type: 'boolean', default: false },
    traps: { type: 'string', default: 'fanotify,fuse' },
  },
});
if (values.format !== 'estargz' && values.format !== 'gzip') throw new Error(`no format is called ${values.format}`);
const isPlain = values.format === 'gzip';
const TRAPS = values.traps.split(',');
const program = values.source ? undefined : await buildRelease();
const image = await bigImage();
const folder = await claimFolder();
const work = folder.dir;
/** Indexes of plain layers, as a daemon keeps them. */
const kept = join(work, 'indexes');

/** What mounting may fetch of the layer, bytes: its index, when it is in the layer. */
const MOST_AT_MOUNT = 16 * 1024 * 1024;

const started = program === undefined ? {} : { program };
const name = isPlain ? image.plain : image.estargz;

function configOf(host: string, trap: string): string {
  return `[registry."${host}"]\nplain_http = true\nallow_private = true\n[trap]\nkind = "${trap}"\n`;
}

/** Reads the plain layer once, on a root of its own, for its index. */
async function passOver(host: string): Promise<void> {
  const config = configOf(host, TRAPS[0] as string);
  await makeIndexes({ folder: kept, work: join(work, 'pass'), config, references: [`${host}/${name}`], ...started });
}

interface Sample {
  readonly readMBs: number;
  readonly cpuSeconds: number;
  readonly peakRssMiB: number;
}

async function sample(host: string, trap: string, dir: string): Promise<Sample> {
  const at = join(dir, 'mnt');
  await mkdir(at, { recursive: true });
  if (isPlain) await giveIndexes(kept, dir);
  const shoal = await startShoal({ dir, config: configOf(host, trap), ...started });
  try {
    await shoal.post('/v1/mounts', { reference: `${host}/${name}`, directory: at });
    const { fetchedBytes } = await shoal.get<StatusReport>('/v1/status');
    if (fetchedBytes > MOST_AT_MOUNT) throw new Error(`${fetchedBytes} bytes came before anything was read`);
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
    if (isPlain) await passOver(registry.host);
    for (let index = 0; index < Number(values.runs); index += 1) {
      for (const trap of TRAPS)
        samples.get(trap)?.push(await sample(registry.host, trap, join(work, `${trap}${index}`)));
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
