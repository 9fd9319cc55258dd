/**
 * A complete device against the same file on the host's ext4: sequential and random 4 KiB reads with a cold page cache,
 * the two in turns. `npm run bench -- complete-device [--rounds N] [--source]` (drops the machine's page cache)
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createControlClient } from '../../src/control/client.ts';
import type { StatusReport } from '../../src/control/status.ts';
import { run, waitFor } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { BIG_BYTES, bigImage } from './support/images.ts';
import { buildRelease, median } from './support/release.ts';
import { warmMemory } from './support/warm-memory.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '5' }, source: { type: 'boolean', default: false } },
});
const ROUNDS = Number(values.rounds);
const RANDOM_READS = 2_000;
const READER = fileURLToPath(new URL('../trap/reader.ts', import.meta.url));
const program = values.source ? undefined : await buildRelease();
const image = await bigImage();
const folder = await claimFolder();
const work = folder.dir;

interface Rates {
  readonly sequential: number[];
  readonly random: number[];
}

async function dropCaches(): Promise<void> {
  await run('sync', []);
  await writeFile('/proc/sys/vm/drop_caches', '3');
}

/** MB/s of a sequential read, and random reads per second by their median time, each with nothing in memory. */
async function measure(file: string, round: number, into: Rates): Promise<void> {
  await dropCaches();
  await warmMemory(work);
  const { stderr } = await run('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M']);
  into.sequential.push(BIG_BYTES / 1e6 / Number(/copied, ([\d.]+(?:e-\d+)?) s/.exec(stderr)?.[1]));
  await dropCaches();
  const { stdout } = await run(process.execPath, [READER, 'time', file, String(RANDOM_READS), String(round)]);
  into.random.push(1e6 / (JSON.parse(stdout) as { p50: number }).p50);
}

const mnt = join(work, 'mnt');
await mkdir(mnt);
const registry = await startRegistry({ workDir: join(work, 'r'), storage: image.storage });
const config = `[registry."${registry.host}"]\nplain_http = true\nallow_private = true\n`;
const shoal = await startShoal({ dir: join(work, 's'), config, ...(program === undefined ? {} : { program }) });
try {
  await shoal.post('/v1/mounts', { reference: `${registry.host}/${image.estargz}`, directory: mnt });
  const lazy = join(mnt, 'big');
  const host = join(work, 'big');
  await run('cp', [lazy, host]);
  await run('cp', ['-r', join(mnt, 'small'), join(work, 'small')]);
  await run('cmp', [lazy, host]);
  await waitFor('every layer to be complete', async () => {
    const status = await shoal.get<StatusReport>('/v1/status');
    return status.images.every(({ layers }) => layers.every(({ complete }) => complete));
  });
  // what is complete is mounted directly: as it is for every container that starts from now on
  const client = createControlClient({ socket: shoal.control });
  await client.call('DELETE', '/v1/mounts', { directory: mnt });
  await shoal.post('/v1/mounts', { reference: `${registry.host}/${image.estargz}`, directory: mnt });
  const before = (await shoal.get<StatusReport>('/v1/status')).faults;
  const erofs: Rates = { sequential: [], random: [] };
  const ext4: Rates = { sequential: [], random: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const turns = [() => measure(host, round, ext4), () => measure(lazy, round, erofs)];
    for (const turn of round % 2 === 0 ? turns : turns.toReversed()) await turn();
  }
  const after = (await shoal.get<StatusReport>('/v1/status')).faults;
  console.log(`medians of ${ROUNDS} rounds; page cache dropped before each`);
  for (const [what, unit] of [
    ['sequential', 'MB/s'],
    ['random', '4 KiB reads/s'],
  ] as const) {
    const [a, b] = [median(erofs[what]), median(ext4[what])];
    const ratios = erofs[what].map((value, index) => value / (ext4[what][index] as number));
    console.log(
      `${what.padEnd(11)} shoal ${a.toFixed(0)}  ext4 ${b.toFixed(0)} ${unit}  ratio of medians ${(a / b).toFixed(2)}, median of ratios ${median(ratios).toFixed(2)}`,
    );
  }
  console.log(`events while measuring: ${after.cold - before.cold} cold, ${after.warm - before.warm} warm`);
} finally {
  await shoal.stop();
  await registry.stop();
  await folder.close();
}
