import { readdir, readFile } from 'node:fs/promises';

/** A process, and how it was called. */
export interface FoundProcess {
  readonly pid: number;
  readonly command: string;
}

/** Mount points below `dir`, in the order they were made. */
export async function mountsBelow(dir: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines.map((line) => line.split(' ')[4] ?? '').filter((target) => target.startsWith(`${dir}/`));
}

/** Processes whose command line names `dir`: started by a test, for nobody else knows its directory. */
export function processesOf(dir: string): Promise<FoundProcess[]> {
  return processesWith('cmdline', dir);
}

/** Processes whose command line or control group holds `text`. */
export async function processesWith(file: 'cmdline' | 'cgroup', text: string): Promise<FoundProcess[]> {
  const found: FoundProcess[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const content = await readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '');
    if (!content.includes(text)) continue;
    const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    found.push({ pid: Number(pid), command: line.replaceAll('\0', ' ').trim() });
  }
  return found;
}
