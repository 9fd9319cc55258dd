/**
 * The main job on real input: a Debian + Python image, a real registry, containerd and shoal. A container starts before
 * its image is downloaded; the same image through overlayfs stands beside it. Then three hosts share one image.
 * Everything is cleaned up afterwards.
 */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { StatusReport } from '../src/control/status.ts';
import { type LabContainerd, startContainerd } from '../test/lab/containerd.ts';
import { prepareImages } from '../test/lab/images.ts';
import { type LabRegistry, startRegistry } from '../test/lab/registry.ts';
import { type LabShoal, startShoal } from '../test/lab/shoal.ts';
import { demoMirror } from './demo-mirror.ts';
import { demoSwarm } from './demo-swarm.ts';

const CACHE = fileURLToPath(new URL('../.cache/images', import.meta.url));
const PYTHON = [
  'python3',
  '-c',
  'import json, sys; print(json.dumps({"hello": "shoal", "python": list(sys.version_info[:2])}))',
];
const MIB = 1024 * 1024;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;
const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

interface Start {
  readonly pullMs: number;
  readonly runMs: number;
  readonly output: string;
}

/** Pulls through the CRI unless the image is there already, then runs Python to its end. */
async function start(containerd: LabContainerd, image: string, id: string, pull: boolean): Promise<Start> {
  const begun = performance.now();
  if (pull) await containerd.criPull(image);
  const pulled = performance.now();
  const result = await containerd.runContainer(image, id, PYTHON);
  if (result.status !== 0) throw new Error(`the container failed: ${result.stderr}`);
  return { pullMs: pulled - begun, runMs: performance.now() - pulled, output: result.stdout.trim() };
}

function printStart(name: string, start: Start): void {
  const total = seconds(start.pullMs + start.runMs).padStart(8);
  say(
    `  ${name.padEnd(34)} ${seconds(start.pullMs).padStart(8)} ${seconds(start.runMs).padStart(8)} ${total}   ${start.output}`,
  );
}

async function overlayfs(work: string, registry: LabRegistry, image: string): Promise<Start> {
  const dir = join(work, 'overlayfs');
  await mkdir(dir);
  const containerd = await startContainerd({ dir, registryHost: registry.host });
  try {
    return await start(containerd, image, 'demo-overlayfs', true);
  } finally {
    await containerd.stop();
  }
}

async function printSources(shoal: LabShoal): Promise<void> {
  const status = await shoal.get<StatusReport>('/v1/status');
  say('');
  for (const image of status.images) {
    say(`  ${image.reference}`);
    for (const layer of image.layers) {
      const share = layer.bytesTotal === 0 ? 100 : (100 * layer.bytesCached) / layer.bytesTotal;
      say(
        `    layer ${layer.digest.slice(7, 19)}  ${layer.format.padEnd(8)} ` +
          `${mib(layer.bytesCached)} of ${mib(layer.bytesTotal)} on this node (${share.toFixed(1)} %)`,
      );
    }
  }
  const sources = Object.entries(status.bytesBySource).map(([name, bytes]) => `${name} ${mib(bytes)}`);
  const compressed = status.images
    .flatMap(({ layers }) => layers)
    .reduce((sum, layer) => sum + layer.bytesCompressed, 0);
  say(`  fetched ${mib(status.fetchedBytes)} of ${mib(compressed)} compressed layer bytes`);
  say(`  bytes by source: ${sources.join(', ') || 'none'}`);
  say(
    `  faults: ${status.faults.cold} cold, ${status.faults.warm} warm, ${status.faults.denied} denied (${status.daemon.trap.kind} trap)`,
  );
}

async function lazily(
  work: string,
  registry: LabRegistry,
  image: string,
): Promise<{ cold: Start; warm: Start; offline: Start }> {
  const shoal = await startShoal({ dir: join(work, 'shoal') });
  const dir = join(work, 'containerd');
  await mkdir(dir);
  const containerd = await startContainerd({
    dir,
    proxy: { name: 'shoal', socket: shoal.socket },
    registryHost: registry.host,
  });
  try {
    const cold = await start(containerd, image, 'demo-cold', true);
    printStart('shoal, cold', cold);
    const warm = await start(containerd, image, 'demo-warm', false);
    printStart('shoal, warm', warm);
    await rpull(containerd, image);
    await printSources(shoal);
    say('');
    say('stopping the registry: a warm container must not need it');
    await registry.stop();
    const offline = await start(containerd, image, 'demo-offline', false);
    printStart('shoal, registry gone', offline);
    return { cold, warm, offline };
  } finally {
    await containerd.stop();
    const code = await shoal.stop();
    if (code !== 0) process.exitCode = 1;
  }
}

/** The same image once more the way stargz-snapshotter's users pull: `ctr-remote images rpull`. */
async function rpull(containerd: LabContainerd, image: string): Promise<void> {
  const begun = performance.now();
  const flags = ['images', 'rpull', '--plain-http', '--snapshotter', containerd.snapshotter, image];
  await containerd.ctr(flags, { remote: true, namespace: 'rpull' });
  const pulled = performance.now();
  const result = await containerd.runContainer(image, 'demo-rpull', PYTHON, { namespace: 'rpull' });
  if (result.status !== 0) throw new Error(`the container pulled by rpull failed: ${result.stderr}`);
  printStart('shoal, ctr-remote rpull', {
    pullMs: pulled - begun,
    runMs: performance.now() - pulled,
    output: result.stdout.trim(),
  });
}

async function leftovers(work: string): Promise<string[]> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8');
  return mounts.split('\n').filter((line) => line.includes(work));
}

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('the demo mounts file systems and runs containers: start it as root');
  say('shoal demo: a container starts before its image is downloaded');
  const images = await prepareImages(CACHE, say);
  const work = await mkdtemp('/var/tmp/shoal-demo-');
  try {
    say('starting a registry and containerd');
    const registry = await startRegistry({ workDir: work, storage: images.storage });
    const image = `${registry.host}/${images.estargz}`;
    try {
      say('');
      say(`  ${''.padEnd(34)} ${'pull'.padStart(8)} ${'run'.padStart(8)} ${'total'.padStart(8)}   first output`);
      const whole = await overlayfs(work, registry, image);
      printStart('containerd overlayfs, whole pull', whole);
      const { cold } = await lazily(work, registry, image);
      const ratio = (cold.pullMs + cold.runMs) / (whole.pullMs + whole.runMs);
      say('');
      say(`shoal needed ${(100 * ratio).toFixed(0)} % of the time overlayfs did from pull to the container's output`);
    } finally {
      await registry.stop();
    }
    await demoMirror({ work, images, say });
    await demoSwarm(images, say);
    say('');
    const left = await leftovers(work);
    say(left.length === 0 ? 'cleaned up: no mount, process or file is left' : `left behind: ${left.join('; ')}`);
    if (left.length > 0) process.exitCode = 1;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

await main();
