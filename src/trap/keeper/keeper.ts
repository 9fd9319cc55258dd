import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync, writeFileSync } from 'node:fs';
import { ShoalError } from '../../errors.ts';
import { closeRaw } from '../../kernel/libc.ts';
import {
  isAlive,
  openProcess,
  type ProcessIdentity,
  processIdentity,
  signalProcess,
  takeDescriptor,
  watchProcess,
} from '../../kernel/pidfd.ts';
import type { Logger } from '../../log.ts';
import { readKeeperRecord, removeKeeperRecord, writeKeeperRecord } from './keeper-record.ts';

/**
 * The keeper: a process that does nothing but hold the fanotify group and the journal, so that the kernel does not
 * allow every waiting read when the daemon dies. `sleep` is the smallest program that can do that.
 */

const GROUP_FD = 3;
const JOURNAL_FD = 4;
const SIGKILL = 9;
/** 68 years: every `sleep` takes a number, not all know `infinity`. */
const FOREVER_S = '2147483647';
const RESPAWN_WAIT_MS = 250;
/** How long `end` waits for the killed process to be gone, ms: it frees nothing but descriptors. */
const END_WAIT_MS = 2_000;

/** What the keeper holds. */
export interface KeptDescriptors {
  readonly group: number;
  readonly journal: number;
}

/** The keeper of this daemon's group. */
export interface Keeper {
  /** Who it is now: it is started anew when it dies. */
  readonly identity: ProcessIdentity;
  /** Ends it and its record, and waits until it is gone; the group then lives only through this process. Idempotent. */
  end(): Promise<void>;
  /** Leaves it alone for the next daemon. Idempotent. */
  leave(): void;
}

/** What a former daemon left behind. */
export interface Inheritance {
  /** Its group and journal, now open here too; undefined when there are none. */
  readonly kept: KeptDescriptors | undefined;
  readonly keeper: ProcessIdentity | undefined;
  /** True when its keeper is gone, and with it the group. */
  readonly lost: boolean;
}

/** Takes back what the keeper named in `runDir` holds. Throws FAILED_PRECONDITION while another daemon still runs. */
export function inherit(runDir: string): Inheritance {
  const record = readKeeperRecord(runDir);
  if (record === undefined) return { kept: undefined, keeper: undefined, lost: false };
  if (record.daemon.pid !== process.pid && isAlive(record.daemon)) {
    throw new ShoalError(
      'FAILED_PRECONDITION',
      `another daemon (pid ${record.daemon.pid}) uses ${runDir}; stop it first`,
    );
  }
  const pidfd = openProcess(record.keeper);
  if (pidfd === undefined) return { kept: undefined, keeper: undefined, lost: true };
  try {
    const kept = { group: takeDescriptor(pidfd, GROUP_FD), journal: takeDescriptor(pidfd, JOURNAL_FD) };
    if (target(kept.group).includes('fanotify') && target(kept.journal).includes('shoal-journal')) {
      return { kept, keeper: record.keeper, lost: false };
    }
    closeRaw(kept.group);
    closeRaw(kept.journal);
    return { kept: undefined, keeper: undefined, lost: true };
  } finally {
    closeRaw(pidfd);
  }
}

/**
 * Ends what a daemon that was abandoned or killed left in `runDir`, for good; false when nothing was left. Only after its
 * mounts are gone: whoever still reads through one sees holes. Throws FAILED_PRECONDITION while the daemon runs.
 */
export function endLeftKeeper(runDir: string): boolean {
  const { kept, keeper } = inherit(runDir);
  if (kept === undefined || keeper === undefined) return false;
  closeRaw(kept.group);
  closeRaw(kept.journal);
  const pidfd = openProcess(keeper);
  if (pidfd !== undefined) {
    signalProcess(pidfd, SIGKILL);
    closeRaw(pidfd);
  }
  removeKeeperRecord(runDir);
  return true;
}

/** Keeps `held`: by `inherited` when it is given and alive, else by a new process; recorded in `runDir`. */
export async function createKeeper(
  { log }: { log: Logger },
  init: { runDir: string; held: KeptDescriptors; inherited?: ProcessIdentity | undefined },
): Promise<Keeper> {
  const keeper = new ProcessKeeper(log, init.runDir, init.held);
  await keeper.begin(init.inherited);
  return keeper;
}

class ProcessKeeper implements Keeper {
  readonly #log: Logger;
  readonly #runDir: string;
  readonly #held: KeptDescriptors;
  #identity: ProcessIdentity = { pid: 0, startTime: 0 };
  #pidfd = -1;
  #watch: { close(): void } | undefined;
  #over = false;

  constructor(log: Logger, runDir: string, held: KeptDescriptors) {
    this.#log = log;
    this.#runDir = runDir;
    this.#held = held;
  }

  get identity(): ProcessIdentity {
    return this.#identity;
  }

  async begin(inherited: ProcessIdentity | undefined): Promise<void> {
    this.#adopt(inherited ?? (await spawnKeeper(this.#held)));
  }

  async end(): Promise<void> {
    if (this.#over) return;
    this.leave();
    removeKeeperRecord(this.#runDir);
    const pidfd = openProcess(this.#identity);
    if (pidfd === undefined) return;
    signalProcess(pidfd, SIGKILL);
    await gone(pidfd);
    closeRaw(pidfd);
  }

  leave(): void {
    if (this.#over) return;
    this.#over = true;
    this.#unwatch();
  }

  #adopt(identity: ProcessIdentity): void {
    const daemon = processIdentity(process.pid);
    const pidfd = openProcess(identity);
    if (pidfd === undefined || daemon === undefined) {
      throw new ShoalError('TRAP_UNAVAILABLE', `the keeper (pid ${identity.pid}) ended as soon as it was started`);
    }
    this.#identity = identity;
    this.#pidfd = pidfd;
    writeKeeperRecord(this.#runDir, { keeper: identity, daemon });
    this.#watch = watchProcess(pidfd, () => void this.#replace());
  }

  #unwatch(): void {
    this.#watch?.close();
    this.#watch = undefined;
    if (this.#pidfd >= 0) closeRaw(this.#pidfd);
    this.#pidfd = -1;
  }

  async #replace(): Promise<void> {
    this.#unwatch();
    if (this.#over) return;
    this.#log.error('the keeper died; starting another: until then a crash of the daemon would show holes', {
      pid: this.#identity.pid,
    });
    try {
      const identity = await spawnKeeper(this.#held);
      if (this.#over) process.kill(identity.pid, SIGKILL);
      else this.#adopt(identity);
    } catch (error) {
      this.#log.error('cannot start a keeper; trying again', { error: String(error) });
      setTimeout(() => void this.#replace(), RESPAWN_WAIT_MS).unref();
    }
  }
}

/** Resolves when the process of `pidfd` has ended, at the latest after END_WAIT_MS. */
async function gone(pidfd: number): Promise<void> {
  const ended = Promise.withResolvers<void>();
  const watch = watchProcess(pidfd, ended.resolve);
  const timer = setTimeout(ended.resolve, END_WAIT_MS);
  await ended.promise;
  clearTimeout(timer);
  watch.close();
}

async function spawnKeeper(held: KeptDescriptors): Promise<ProcessIdentity> {
  const child =
    (await started('sleep', [FOREVER_S], held)) ??
    (await started(process.execPath, ['-e', `setInterval(() => {}, ${0x7fff_ffff})`], held));
  const identity = child?.pid === undefined ? undefined : processIdentity(child.pid);
  if (child === undefined || identity === undefined) {
    throw new ShoalError('TRAP_UNAVAILABLE', 'cannot start a keeper process: neither `sleep` nor node itself runs');
  }
  child.unref();
  shieldFromOom(identity.pid);
  return identity;
}

/** The running child, or undefined when the program cannot be started. */
async function started(program: string, args: string[], held: KeptDescriptors): Promise<ChildProcess | undefined> {
  const child = spawn(program, args, {
    cwd: '/',
    detached: true,
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
    stdio: ['ignore', 'ignore', 'ignore', held.group, held.journal],
  });
  try {
    await once(child, 'spawn');
    return child;
  } catch {
    return undefined;
  }
}

function shieldFromOom(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/oom_score_adj`, '-1000');
  } catch {
    // needs CAP_SYS_RESOURCE; without it the keeper is merely a small target
  }
}

function target(fd: number): string {
  return readlinkSync(`/proc/self/fd/${fd}`);
}
