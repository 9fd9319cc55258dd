/**
 * Memory of the daemon: idle, after each of ten different images was pulled and ran Python, and a while later.
 * `npm run bench -- rss [--source]`
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startContainerd } from '../lab/containerd.ts';
import { startRegistry } from '../lab/registry.ts';
import { startShoal } from '../lab/shoal.ts';
import { variantImages } from './support/images.ts';
import { processUsage } from './support/process-usage.ts';
import { buildRelease } from './support/release.ts';
import { claimFolder } from './support/work-folder.ts';

const { values } = parseArgs({ options: { source: { type: 'boolean', default: false } } });
/** Long enough for V8 to see that nothing happens. */
const IDLE_MS = 15_000;
const COMMAND = ['python3', '-c', 'import json, email, ssl; print("hello")'];
const program = values.source ? undefined : await buildRelease();
const images = await variantImages();
const folder = await claimFolder();
const work = folder.dir;
await mkdir(join(work, 'c'));
const registry = await startRegistry({ workDir: join(work, 'r'), storage: images.storage });
const config = `[registry."${registry.host}"]\nplain_http = true\nallow_private = true\n`;
const shoal = await startShoal({ dir: join(work, 's'), config, ...(program === undefined ? {} : { program }) });

function print(what: string): void {
  const { rssMiB, anonMiB, fileMiB, peakRssMiB, cpuSeconds } = processUsage(shoal.daemon.pid);
  const cells = [rssMiB, anonMiB, fileMiB, peakRssMiB].map((value) => value.toFixed(0).padStart(8));
  console.log(`${what.padEnd(16)}${cells.join('')}${cpuSeconds.toFixed(1).padStart(8)}`);
}

try {
  await sleep(IDLE_MS);
  console.log('                  RSS MiB   anon    file    peak   CPU s');
  print('idle');
  const proxy = { name: 'shoal', socket: shoal.socket };
  const containerd = await startContainerd({ dir: join(work, 'c'), registryHost: registry.host, proxy });
  try {
    for (const [index, name] of images.estargz.entries()) {
      const image = `${registry.host}/${name}`;
      await containerd.criPull(image);
      const { stdout, stderr } = await containerd.runContainer(image, `c${index}`, COMMAND);
      if (stdout.trim() !== 'hello') throw new Error(`container failed: ${stderr}`);
      print(`image ${index + 1}`);
    }
    await sleep(IDLE_MS);
    print('idle again');
  } finally {
    await containerd.stop();
  }
} finally {
  await shoal.stop();
  await registry.stop();
  await folder.close();
}
