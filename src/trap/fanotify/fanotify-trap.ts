import { mkdirSync } from 'node:fs';
import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import { createResponder, openPreContentGroup } from '../../kernel/fanotify.ts';
import { setrlimitNofile } from '../../kernel/libc.ts';
import type { Logger } from '../../log.ts';
import { createKeeper, inherit, type KeptDescriptors } from '../keeper/keeper.ts';
import type { OnFatal } from '../trap.ts';
import { createGroupTrap, type FanotifyTrap } from './group-trap.ts';
import { createJournalFd, openJournal } from './journal.ts';
import { takeStaleEvents } from './stale-events.ts';

export type { FanotifyTrap } from './group-trap.ts';

/** Soft descriptor limit the trap asks for: each waiting reader holds one descriptor. */
const WANTED_DESCRIPTORS = 65_536;
/** Slots of the journal at most; a descriptor beyond it would only lose its place in the journal. */
const MAX_JOURNAL_SLOTS = 1_048_576;
/** Descriptors kept free for everything else the daemon opens: half of them, up to this many. */
const RESERVED_DESCRIPTORS = 8192;

/** Tuning of the fanotify trap. */
export interface FanotifyTrapInit {
  /** Directory for `keeper.json`; made 0700 when missing. One daemon at a time. */
  readonly runDir: string;
  readonly onFatal: OnFatal;
  /** Readers waiting at once; the kernel queues the rest (default: descriptors allowed, less what the daemon needs). */
  readonly maxInFlight?: number;
}

/**
 * Traps reads by pre-content events (Linux 6.14 and newer; fanotify(7)). Takes over what a former daemon of `runDir` left
 * waiting: create, attach every known device, then start. Until `start`, write to no attached device.
 * Throws TRAP_UNAVAILABLE, and FAILED_PRECONDITION while another daemon uses `runDir`.
 */
export async function createFanotifyTrap(
  { log, clock }: { log: Logger; clock: Clock },
  init: FanotifyTrapInit,
): Promise<FanotifyTrap> {
  mkdirSync(init.runDir, { recursive: true, mode: 0o700 });
  const { soft } = setrlimitNofile(WANTED_DESCRIPTORS);
  const inheritance = inherit(init.runDir);
  const held = inheritance.kept ?? openKept(Math.min(soft, MAX_JOURNAL_SLOTS));
  const journal = openJournal(held.journal);
  if (journal === undefined) throw new ShoalError('STATE_CORRUPT', 'the keeper holds a journal of another version');
  const responder = createResponder(held.group);
  const stale = takeStaleEvents(journal, responder);
  const keeper = await createKeeper({ log }, { runDir: init.runDir, held, inherited: inheritance.keeper });
  if (inheritance.kept !== undefined) {
    log.info('took over the fanotify group of a former daemon', {
      waiting: stale.entries.length,
      asked_again: stale.denied,
    });
  }
  const spare = Math.max(16, soft - Math.min(RESERVED_DESCRIPTORS, Math.floor(soft / 2)));
  const maxInFlight = init.maxInFlight ?? spare;
  return createGroupTrap(
    { log, clock, held, journal, responder, stale, keeper, inheritance, maxInFlight },
    init.onFatal,
  );
}

function openKept(slots: number): KeptDescriptors {
  try {
    return { group: openPreContentGroup(), journal: createJournalFd(slots) };
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new ShoalError('TRAP_UNAVAILABLE', `fanotify pre-content events need Linux 6.15 and root: ${why}`, { cause });
  }
}
