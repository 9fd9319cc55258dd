/**
 * Time from pull to first output of the Python container whose layers are plain tar.gz, behind a 100 Mbit/s link:
 * containerd's overlayfs, shoal's first start (no index anywhere), and shoal on an empty node that has the index.
 * `npm run bench -- plain-start [--runs N]`
 */
import { cp, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { StatusReport } from '../../src/control/status.ts';
import { startContainerd } from '../lab/containerd.ts';
import { prepareImages } from '../lab/images.ts';
import { createLink } from '../lab/link.ts';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { median } from './support/release.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } });
const COMMAND = ['python3', '-c', 'print("hello")'];
/** Number of the link; tells its addresses from those of other benchmarks. */
const LINK = 29;
const images = await prepareImages(fileURLToPath(new URL('../../.cache/images', import.meta.url)), console.log);
const folder = await claimFolder();
const work = folder.dir;
const kept = join(work, 'indexes');

interface Sample {
  readonly ms: number;
  readonly fetched: number;
}

async function sample(host: string, how: 'overlayfs' | 'first' | 'indexed', name: string): Promise<Sample> {
  const dir = join(work, name);
  await mkdir(join(dir, 'c'), { recursive: true });
  if (how === 'indexed') {
    await mkdir(join(dir, 's/root'), { recursive: true, mode: 0o700 });
    await cp(kept, join(dir, 's/root/indexes'), { recursive: true });
  }
  const config = `[registry."${host}"]\nplain_http = true\nallow_private = true\n`;
  const shoal = how === 'overlayfs' ? undefined : await startShoal({ dir: join(dir, 's'), config, readyMs: 60_000 });
  const proxy = shoal === undefined ? {} : { proxy: { name: 'shoal', socket: shoal.socket } };
  const containerd = await startContainerd({ dir: join(dir, 'c'), registryHost: host, ...proxy });
  try {
    await run('sync', []);
    const begun = performance.now();
    await containerd.criPull(`${host}/${images.plain}`);
    const result = await containerd.runContainer(`${host}/${images.plain}`, name, COMMAND);
    const ms = performance.now() - begun;
    if (result.stdout.trim() !== 'hello') throw new Error(`container failed: ${result.stderr}`);
    const fetched = (await shoal?.get<StatusReport>('/v1/status'))?.fetchedBytes ?? 0;
    if (how === 'first') await cp(join(dir, 's/root/indexes'), kept, { recursive: true });
    return { ms, fetched };
  } finally {
    await containerd.stop();
    await shoal?.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

const link = await createLink(LINK, '100mbit', `${folder.name}-far`);
try {
  const place = { address: link.remoteAddress, port: 5000, netns: link.netns };
  const registry = await startRegistry({ workDir: join(work, 'r'), storage: images.storage, ...place });
  try {
    const taken: Record<string, Sample[]> = { overlayfs: [], first: [], indexed: [] };
    for (let index = 0; index < Number(values.runs); index += 1) {
      for (const how of ['overlayfs', 'first', 'indexed'] as const) {
        taken[how]?.push(await sample(registry.host, how, `${how}${index}`));
      }
    }
    const base = median((taken.overlayfs ?? []).map(({ ms }) => ms));
    for (const [how, samples] of Object.entries(taken)) {
      const ms = median(samples.map((each) => each.ms));
      const fetched = (median(samples.map((each) => each.fetched)) / 1e6).toFixed(1);
      const runs = samples.map((each) => Math.round(each.ms)).join(' ');
      console.log(
        `${how.padEnd(10)} ms: ${runs}  median ${Math.round(ms)}  ratio ${(ms / base).toFixed(3)}  fetched ${fetched} MB`,
      );
    }
  } finally {
    await registry.stop();
  }
} finally {
  await link.close();
  await folder.close();
}
