/**
 * `find / -xdev -printf` over an image: shoal's mount against containerd's overlayfs snapshot of the same image, in
 * turns, with a cold and a warm dentry cache. `npm run bench -- find [--rounds N] [--source]` (drops the page cache)
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startContainerd } from '../lab/containerd.ts';
import { prepareImages } from '../lab/images.ts';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { buildRelease, median } from './support/release.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '7' }, source: { type: 'boolean', default: false } },
});
const ROUNDS = Number(values.rounds);
const program = values.source ? undefined : await buildRelease();
const images = await prepareImages(fileURLToPath(new URL('../../.cache/images', import.meta.url)), console.log);
const folder = await claimFolder();
const work = folder.dir;
const registry = await startRegistry({ workDir: join(work, 'r'), storage: images.storage });
const image = `${registry.host}/${images.estargz}`;
const config = `[registry."${registry.host}"]\nplain_http = true\nallow_private = true\n`;
const closing: (() => Promise<unknown>)[] = [() => registry.stop()];

/** A writable container root of the image, as a snapshotter mounts it. */
async function mountSnapshot(name: string, proxy?: { name: string; socket: string }): Promise<string> {
  const dir = join(work, name);
  const at = join(work, `${name}-root`);
  await mkdir(dir);
  await mkdir(at);
  const containerd = await startContainerd({
    dir,
    registryHost: registry.host,
    ...(proxy === undefined ? {} : { proxy }),
  });
  closing.push(() => containerd.stop());
  await containerd.criPull(image);
  const snapshots = (...args: string[]) =>
    containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, ...args]);
  const rows = (await snapshots('ls')).stdout.trim().split('\n').slice(1);
  const parents = new Map(rows.map((row) => row.trim().split(/\s+/) as [string, string]));
  const top = [...parents.keys()].find((key) => ![...parents.values()].includes(key));
  const { stdout: mount } = await snapshots('prepare', '--target', at, 'find', top as string);
  await run('sh', ['-ec', mount]);
  closing.push(() => run('umount', [at]));
  return at;
}

async function timeFind(at: string): Promise<{ ms: number; entries: number }> {
  const begun = performance.now();
  const { stdout } = await run('find', [at, '-xdev', '-printf', '%y %m %u %s %T@ %p %l\\n']);
  return { ms: performance.now() - begun, entries: stdout.split('\n').length };
}

try {
  const shoal = await startShoal({ dir: join(work, 's'), config, ...(program === undefined ? {} : { program }) });
  closing.push(() => shoal.stop());
  const roots = { overlayfs: await mountSnapshot('overlayfs') };
  const all = { ...roots, shoal: await mountSnapshot('lazy', { name: 'shoal', socket: shoal.socket }) };
  const times = { cold: { overlayfs: [], shoal: [] }, warm: { overlayfs: [], shoal: [] } } as Record<
    'cold' | 'warm',
    Record<'overlayfs' | 'shoal', number[]>
  >;
  const entries = new Set<number>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const order = round % 2 === 0 ? (['overlayfs', 'shoal'] as const) : (['shoal', 'overlayfs'] as const);
    for (const name of order) {
      await run('sync', []);
      await writeFile('/proc/sys/vm/drop_caches', '3');
      for (const cache of ['cold', 'warm'] as const) {
        const found = await timeFind(all[name]);
        times[cache][name].push(found.ms);
        entries.add(found.entries);
      }
    }
  }
  console.log(`${[...entries].join(' / ')} entries, medians of ${ROUNDS} rounds`);
  for (const cache of ['cold', 'warm'] as const) {
    const [lazy, whole] = [median(times[cache].shoal), median(times[cache].overlayfs)];
    console.log(
      `${cache} caches: shoal ${lazy.toFixed(0)} ms, overlayfs ${whole.toFixed(0)} ms, speed ratio ${(whole / lazy).toFixed(2)}`,
    );
  }
} finally {
  for (const close of closing.toReversed()) await close().catch((error) => console.error(String(error)));
  await folder.close();
}
