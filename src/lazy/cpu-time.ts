import { readFileSync } from 'node:fs';

/** Processor time, ms, since the machine and the daemon began. */
export interface CpuTime {
  /** All processors together, for whatever they worked. */
  readonly machineMs: number;
  /** This process. */
  readonly daemonMs: number;
}

/** Clock ticks of /proc/stat, the same on every Linux. */
const TICK_MS = 10;

/** What was used so far. */
export function cpuTime(): CpuTime {
  const { user, system } = process.cpuUsage();
  return { machineMs: busyMs(readFileSync('/proc/stat', 'latin1')), daemonMs: Math.round((user + system) / 1_000) };
}

/** Busy time in the text of /proc/stat (proc(5)): user, nice, system, irq and softirq; not idle, waiting for disks or stolen. */
export function busyMs(stat: string): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = stat
    .slice(0, stat.indexOf('\n'))
    .split(/ +/)
    .slice(1)
    .map(Number);
  return TICK_MS * (user + nice + system + irq + softirq);
}
