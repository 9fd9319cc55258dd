/**
 * Time from pull to first output of the Python container: shoal ÷ containerd's overlayfs, registry on loopback and
 * behind a 100 Mbit/s link, in one run. `npm run bench -- start [--runs N]`
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { StatusReport } from '../../src/control/status.ts';
import { startContainerd } from '../lab/containerd.ts';
import { prepareImages } from '../lab/images.ts';
import { createLink } from '../lab/link.ts';
import { run } from '../lab/process.ts';
import { type LabRegistry, startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({ options: { runs: { type: 'string', default: '3' } } });
const RUNS = Number(values.runs);
const COMMAND = ['python3', '-c', 'print("hello")'];
const images = await prepareImages(fileURLToPath(new URL('../../.cache/images', import.meta.url)), console.log);
const folder = await claimFolder();
const work = folder.dir;

interface Sample {
  readonly pullMs: number;
  readonly runMs: number;
  readonly fetched?: number;
  readonly layerBytes?: number;
}

const median = (numbers: number[]): number =>
  numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] as number;
const totalOf = (samples: readonly Sample[]): number => median(samples.map(({ pullMs, runMs }) => pullMs + runMs));

async function sample(registry: LabRegistry, lazy: boolean, name: string): Promise<Sample> {
  const dir = join(work, name);
  await mkdir(join(dir, 'c'), { recursive: true });
  const image = `${registry.host}/${images.estargz}`;
  const section = `[registry."${registry.host}"]\nplain_http = true\nallow_private = true\n`;
  const shoal = lazy ? await startShoal({ dir: join(dir, 's'), config: section }) : undefined;
  const proxy = shoal === undefined ? {} : { proxy: { name: 'shoal', socket: shoal.socket } };
  const containerd = await startContainerd({ dir: join(dir, 'c'), registryHost: registry.host, ...proxy });
  try {
    await run('sync', []);
    const begun = performance.now();
    await containerd.criPull(image);
    const pulled = performance.now();
    const result = await containerd.runContainer(image, name, COMMAND);
    const done = performance.now();
    if (result.stdout.trim() !== 'hello') throw new Error(`container failed: ${result.stderr}`);
    const status = await shoal?.get<StatusReport>('/v1/status');
    return {
      pullMs: pulled - begun,
      runMs: done - pulled,
      ...(status === undefined ? {} : { fetched: status.fetchedBytes }),
    };
  } finally {
    await containerd.stop();
    await shoal?.stop();
    await rm(dir, { recursive: true, force: true });
  }
}

async function compare(title: string, registry: LabRegistry): Promise<void> {
  const whole: Sample[] = [];
  const lazy: Sample[] = [];
  for (let index = 0; index < RUNS; index += 1) {
    whole.push(await sample(registry, false, `o${index}`));
    lazy.push(await sample(registry, true, `l${index}`));
  }
  const show = (samples: Sample[]): string =>
    samples.map(({ pullMs, runMs }) => `${Math.round(pullMs)}+${Math.round(runMs)}`).join('  ');
  console.log(`${title}`);
  console.log(`  overlayfs pull+run ms: ${show(whole)}  median ${Math.round(totalOf(whole))}`);
  console.log(`  shoal     pull+run ms: ${show(lazy)}  median ${Math.round(totalOf(lazy))}`);
  console.log(
    `  ratio ${(totalOf(lazy) / totalOf(whole)).toFixed(3)}; bytes fetched ${median(lazy.map((s) => s.fetched ?? 0))}`,
  );
}

try {
  const loopback = await startRegistry({ workDir: join(work, 'r1'), storage: images.storage });
  await compare('registry on loopback', loopback).finally(() => loopback.stop());
  const link = await createLink(7, '100mbit', `${folder.name}-far`);
  try {
    const remote = await startRegistry({
      workDir: join(work, 'r2'),
      storage: images.storage,
      address: link.remoteAddress,
      port: 5000,
      netns: link.netns,
    });
    await compare('registry behind 100 Mbit/s', remote).finally(() => remote.stop());
  } finally {
    await link.close();
  }
} finally {
  await folder.close();
}
