import { denyResponse, type Responder } from '../../kernel/fanotify.ts';
import { closeRaw, O, openFd, syscallRaw } from '../../kernel/libc.ts';
import type { Journal, JournalEntry } from './journal.ts';

const F_DUPFD_CLOEXEC = 1030;
const DENY_EIO = denyResponse('EIO');

/**
 * Events that a former daemon read and did not answer. The kernel knows them by descriptor number only, and an answer
 * goes to the oldest event of its number: were a new event given such a number, the answer meant for it would let the
 * old reader go, and show it a hole. So each number stays occupied until its event is settled.
 */
export interface StaleEvents {
  /** Those that can be filled and answered. */
  readonly entries: readonly JournalEntry[];
  /** Journaled ones that had to be denied, because their numbers were in use here already. */
  readonly denied: number;
  /** Answers one, denies whatever else waits under its number, and frees the number. Twice does nothing. */
  settle(eventFd: number, response: number): void;
  /** Frees the numbers and answers nothing: the journal keeps what waits. */
  release(): void;
}

/**
 * Takes stock after a restart, before the first read of the group: occupies the numbers of journaled events and denies
 * every other event (a read whose readahead is denied asks again).
 */
export function takeStaleEvents(journal: Journal, responder: Responder): StaleEvents {
  const journaled = journal.entries();
  const occupied = occupy(journaled.map(({ eventFd }) => eventFd));
  for (let eventFd = 0; eventFd < journal.slots; eventFd += 1) {
    if (!occupied.has(eventFd)) denyAll(responder, eventFd);
  }
  const entries = journaled.filter(({ eventFd }) => occupied.has(eventFd));
  for (const { eventFd } of journaled) if (!occupied.has(eventFd)) journal.clear(eventFd);
  return {
    entries,
    denied: journaled.length - entries.length,
    settle(eventFd, response) {
      if (!occupied.delete(eventFd)) return;
      responder.respond(eventFd, response);
      denyAll(responder, eventFd);
      journal.clear(eventFd);
      closeRaw(eventFd);
    },
    release() {
      for (const eventFd of occupied) closeRaw(eventFd);
      occupied.clear();
    },
  };
}

function denyAll(responder: Responder, eventFd: number): void {
  while (responder.respond(eventFd, DENY_EIO) === 0);
}

/** Puts /dev/null at each of these numbers that is free; the numbers it now holds. */
function occupy(numbers: readonly number[]): Set<number> {
  const occupied = new Set<number>();
  const filler = openFd('/dev/null', O.RDONLY);
  for (const number of numbers) {
    const got = number === filler ? filler : syscallRaw('fcntl', filler, F_DUPFD_CLOEXEC, number);
    if (got === number) occupied.add(number);
    else if (got >= 0) closeRaw(got);
  }
  if (!occupied.has(filler)) closeRaw(filler);
  return occupied;
}
