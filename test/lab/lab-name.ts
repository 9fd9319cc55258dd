import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { unmount } from '../../src/kernel/mount-api.ts';
import { mountsBelow, processesOf, processesWith } from './leftovers.ts';
import { deleteNamespaces, namespaces } from './network.ts';

/** On a real file system, so that the traps work. */
const BASE = '/var/tmp';
/** Labs of this checkout; who made one, and the how manieth it is, follows. */
const PREFIX = `sl${createHash('sha256')
  .update(import.meta.filename)
  .digest('hex')
  .slice(0, 4)}`;
const NAME = new RegExp(`^(${PREFIX}-(\\d+)-(\\d+)-(\\d+))(?:-|$)`);

let made = 0;

/** A name of nobody else's for a lab, and its directory; what labs of killed processes left is swept away first. */
export async function claimLab(): Promise<{ name: string; dir: string }> {
  await sweepDeadLabs();
  made += 1;
  const name = `${PREFIX}-${process.pid}-${await startedAt(process.pid)}-${made}`;
  const dir = join(BASE, name);
  await mkdir(dir, { mode: 0o700 });
  return { name, dir };
}

/** Everything of a lab that is still there: mounts, processes and network namespaces. */
export async function remainsOf(name: string): Promise<string[]> {
  const mounts = await mountsBelow(join(BASE, name));
  const processes = (await processesOfLab(name)).map(({ pid, command }) => `${pid} ${command}`);
  const networks = (await namespaces()).filter((each) => each.startsWith(`${name}-`));
  return [...mounts, ...processes, ...networks];
}

/** Takes away what a lab left, by its name alone. */
export async function sweepLab(name: string): Promise<void> {
  const dir = join(BASE, name);
  for (let round = 0; round < 50; round += 1) {
    const left = await processesOfLab(name);
    if (left.length === 0) break;
    for (const { pid } of left) kill(pid);
    await sleep(50);
  }
  for (const target of (await mountsBelow(dir)).reverse()) await unmount(target).catch(() => {});
  await deleteNamespaces(name);
  await rm(dir, { recursive: true, force: true });
}

/** Takes away what labs of processes left that are no more. */
export async function sweepDeadLabs(): Promise<void> {
  const seen = [...(await readdir(BASE)), ...(await namespaces())];
  const labs = new Map(seen.map((name) => NAME.exec(name)).map((match) => [match?.[1], match]));
  for (const [name, match] of labs) {
    if (name === undefined || match === null || match === undefined) continue;
    if ((await startedAt(Number(match[2])).catch(() => undefined)) !== match[3]) await sweepLab(name);
  }
}

/** Containers carry the lab's name in their control group, everything else in its command line. */
async function processesOfLab(name: string): Promise<{ pid: number; command: string }[]> {
  return [...(await processesOf(`${join(BASE, name)}/`)), ...(await processesWith('cgroup', `/${name}-`))];
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // it ended meanwhile
  }
}

/** Start of a process in ticks since boot: with its number it names a process for good. */
async function startedAt(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')')).split(' ')[20] as string;
}
