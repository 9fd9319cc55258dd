import type { Clock } from '../clock.ts';
import { ShoalError } from '../errors.ts';
import { isAlive } from '../kernel/pidfd.ts';
import { probeFanotifyTrap } from '../kernel/probe.ts';
import type { Logger } from '../log.ts';
import { createFanotifyTrap } from './fanotify/fanotify-trap.ts';
import { readKeeperRecord } from './keeper/keeper-record.ts';
import type { KernelTrap, OnFatal } from './trap.ts';

/** The trap a configuration asks for; `auto` takes fanotify where it works. */
export type TrapPreference = 'auto' | 'fanotify' | 'fuse';

/** Where the trap works. */
export interface ChooseTrapInit {
  readonly prefer: TrapPreference;
  /** Directory for what must outlive the daemon, not the machine. */
  readonly runDir: string;
  /** Existing directory on the file system that will hold the device files. */
  readonly blobsDir: string;
  readonly onFatal: OnFatal;
}

/** A trap, not started yet, and one sentence for people on why it is this one. */
export interface ChosenTrap {
  readonly trap: KernelTrap;
  readonly reason: string;
}

/**
 * Makes the trap that fits configuration and kernel. Throws, with what to do, TRAP_UNAVAILABLE, and FAILED_PRECONDITION
 * where it would be FUSE while a former daemon's fanotify trap still holds readers.
 */
export async function chooseTrap(
  components: { log: Logger; clock: Clock },
  { prefer, runDir, blobsDir, onFatal }: ChooseTrapInit,
): Promise<ChosenTrap> {
  const fanotify = prefer === 'fuse' ? undefined : await probeFanotifyTrap(blobsDir);
  if (prefer === 'fanotify' && fanotify?.available === false) {
    throw new ShoalError('TRAP_UNAVAILABLE', `trap.kind = "fanotify": ${fanotify.reason}; or use "auto" or "fuse"`);
  }
  if (fanotify?.available === true) {
    const reason = prefer === 'auto' ? fanotify.reason : 'the configuration asks for it';
    return { trap: await createFanotifyTrap(components, { runDir, onFatal }), reason: `fanotify: ${reason}` };
  }
  refuseToAbandon(runDir, fanotify?.reason);
  // loaded only when it is used: it brings a native addon of its own
  const { createFuseTrap } = await import('./fuse/fuse-trap.ts');
  const reason = fanotify === undefined ? 'the configuration asks for it' : fanotify.reason;
  return { trap: await createFuseTrap(components, { runDir }), reason: `fuse: ${reason}` };
}

/** FUSE would never answer the readers that a former daemon's fanotify trap holds: they would wait for good. */
function refuseToAbandon(runDir: string, obstacle: string | undefined): void {
  const keeper = readKeeperRecord(runDir)?.keeper;
  if (keeper === undefined || !isAlive(keeper)) return;
  const why = obstacle === undefined ? '' : ` (now: ${obstacle})`;
  throw new ShoalError(
    'FAILED_PRECONDITION',
    `containers still use images through the fanotify trap of a former daemon, keeper pid ${keeper.pid}${why}: ` +
      'end them, then start and stop shoal once with trap.kind = "fanotify"',
  );
}
