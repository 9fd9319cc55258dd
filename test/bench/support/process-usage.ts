import { readFileSync } from 'node:fs';

/** Clock ticks per second in /proc/PID/stat, the same on every Linux. */
const TICKS = 100;

/** What a process took so far, from /proc. */
export interface ProcessUsage {
  readonly cpuSeconds: number;
  readonly rssMiB: number;
  /** Heap, stacks and buffers: what no other process shares. */
  readonly anonMiB: number;
  /** Pages of the program and its libraries. */
  readonly fileMiB: number;
  readonly peakRssMiB: number;
}

/** Reads /proc of a live process. */
export function processUsage(pid: number): ProcessUsage {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const mib = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return {
    cpuSeconds: (Number(fields[11]) + Number(fields[12])) / TICKS,
    rssMiB: mib('VmRSS'),
    anonMiB: mib('RssAnon'),
    fileMiB: mib('RssFile'),
    peakRssMiB: mib('VmHWM'),
  };
}
