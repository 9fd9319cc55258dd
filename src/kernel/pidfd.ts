import { readFileSync } from 'node:fs';
import koffi from 'koffi';
import { syscall, syscallRaw } from './libc.ts';

const FD_CLOEXEC_FLAG = 1;
const F_SETFD = 2;

/** A process that cannot be confused with a later one of the same number: pid and start time in clock ticks since boot. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: number;
}

/** Who `pid` is now; undefined when there is no such process or it is only waiting to be reaped (proc(5), stat). */
export function processIdentity(pid: number): ProcessIdentity | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
  } catch {
    return undefined;
  }
  // the second field is the command in parentheses and may itself hold spaces and parentheses
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const state = fields[0];
  const startTime = Number(fields[19]);
  if (state === 'Z' || state === 'X' || !Number.isSafeInteger(startTime)) return undefined;
  return { pid, startTime };
}

/** True while exactly this process runs. */
export function isAlive(identity: ProcessIdentity): boolean {
  return processIdentity(identity.pid)?.startTime === identity.startTime;
}

/** A descriptor of exactly this process (pidfd_open(2)), or undefined when it is gone. */
export function openProcess(identity: ProcessIdentity): number | undefined {
  const pidfd = syscallRaw('pidfd_open', identity.pid, 0);
  if (pidfd < 0) return undefined;
  // the number may have been reused before the open: from here on it cannot be
  if (isAlive(identity)) return pidfd;
  syscallRaw('close', pidfd);
  return undefined;
}

/** A duplicate, here and with CLOEXEC, of descriptor `theirFd` of another process (pidfd_getfd(2)); throws KERNEL_CALL. */
export function takeDescriptor(pidfd: number, theirFd: number): number {
  const fd = syscall('pidfd_getfd', pidfd, theirFd, 0);
  syscall('fcntl', fd, F_SETFD, FD_CLOEXEC_FLAG);
  return fd;
}

/** Sends `signal` through a pidfd; 0 or -errno. */
export function signalProcess(pidfd: number, signal: number): number {
  return syscallRaw('pidfd_send_signal', pidfd, signal, null, 0);
}

/** Calls `ended` once, from the event loop, when the process of `pidfd` ends; does not keep this process running. */
export function watchProcess(pidfd: number, ended: () => void): { close(): void } {
  // a pidfd becomes readable when its process ends
  const handle = koffi.node.poll(pidfd, { readable: true }, () => {
    handle.close();
    ended();
  });
  handle.unref();
  return handle;
}
