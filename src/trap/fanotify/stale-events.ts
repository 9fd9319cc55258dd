import { denyResponse, FAN, type Responder } from '../../kernel/fanotify.ts';
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
  /** Those that had to be denied: journaled, but their numbers were in use here already, or not journaled. */
  readonly denied: number;
  /** From now on this one is allowed only by so many answers that allow. */
  share(eventFd: number, answers: number): void;
  /**
   * Answers one, denies whatever else waits under its number, and frees the number; true when it did. Nothing the second
   * time, or while further answers are needed.
   */
  settle(eventFd: number, response: number): boolean;
  /** Frees the numbers and answers nothing: the journal keeps what waits. */
  release(): void;
}

/**
 * Takes stock after a restart, before the first read of the group: occupies the numbers of journaled events and denies
 * every other event (a read whose readahead is denied asks again, any other fails).
 */
export function takeStaleEvents(journal: Journal, responder: Responder): StaleEvents {
  journal.recordBatch();
  const journaled = journal.entries();
  const occupied = occupy(journaled.map(({ eventFd }) => eventFd));
  let denied = 0;
  for (let eventFd = 0; eventFd < journal.slots; eventFd += 1) {
    if (!occupied.has(eventFd)) denied += denyAll(responder, eventFd);
  }
  const entries = journaled.filter(({ eventFd }) => occupied.has(eventFd));
  for (const { eventFd } of journaled) if (!occupied.has(eventFd)) journal.clear(eventFd);
  return {
    entries,
    denied,
    share: (eventFd, answers) => void occupied.set(eventFd, answers),
    settle(eventFd, response) {
      const answers = occupied.get(eventFd);
      if (answers === undefined) return false;
      if (response === FAN.ALLOW && answers > 1) {
        occupied.set(eventFd, answers - 1);
        return false;
      }
      occupied.delete(eventFd);
      responder.respond(eventFd, response);
      denyAll(responder, eventFd);
      journal.clear(eventFd);
      closeRaw(eventFd);
      return true;
    },
    release() {
      for (const eventFd of occupied.keys()) closeRaw(eventFd);
      occupied.clear();
    },
  };
}

/** How many there were. */
function denyAll(responder: Responder, eventFd: number): number {
  let count = 0;
  while (responder.respond(eventFd, DENY_EIO) === 0) count += 1;
  return count;
}

/** Puts /dev/null at each of these numbers that is free; the numbers it now holds, and the answers each needs. */
function occupy(numbers: readonly number[]): Map<number, number> {
  const occupied = new Map<number, number>();
  const filler = openFd('/dev/null', O.RDONLY);
  for (const number of numbers) {
    const got = number === filler ? filler : syscallRaw('fcntl', filler, F_DUPFD_CLOEXEC, number);
    if (got === number) occupied.set(number, 1);
    else if (got >= 0) closeRaw(got);
  }
  if (!occupied.has(filler)) closeRaw(filler);
  return occupied;
}
