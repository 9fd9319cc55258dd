import { fstatSync } from 'node:fs';
import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import { denyResponse, FAN, markPreAccess, type Responder, unmarkPreAccess } from '../../kernel/fanotify.ts';
import { closeRaw } from '../../kernel/libc.ts';
import type { Logger } from '../../log.ts';
import { createFaultQueue, type FaultQueue } from '../fault-queue.ts';
import type { Inheritance, Keeper, KeptDescriptors } from '../keeper/keeper.ts';
import type { Fault, FaultAnswer, KernelTrap, OnFatal, TrapDevice, TrapStats } from '../trap.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { type ReadingThread, startReadingThread } from './reading-thread.ts';
import type { StaleEvents } from './stale-events.ts';
import { FAULT_WORDS, type Notice, type ThreadDevice } from './thread-protocol.ts';
import { idTaken, isOf, isPresent, markError, wholeBlocks } from './trapped.ts';

const DENY_EIO = denyResponse('EIO');
/** How long events may still be on their way after a mark was removed. */
const FORGET_MS = 10_000;

/** The fanotify trap's own abilities. */
export interface FanotifyTrap extends KernelTrap {
  readonly kind: 'fanotify';
}

/** What a trap is made of, by `createFanotifyTrap`. */
export interface GroupTrapComponents {
  readonly log: Logger;
  readonly clock: Clock;
  readonly held: KeptDescriptors;
  readonly journal: Journal;
  readonly responder: Responder;
  readonly stale: StaleEvents;
  readonly keeper: Keeper;
  readonly inheritance: Inheritance;
  readonly maxInFlight: number;
}

/** The trap over an open group: devices, waiting readers, and the thread that reads. */
export function createGroupTrap(components: GroupTrapComponents, onFatal: OnFatal): FanotifyTrap {
  return new GroupTrap(components, onFatal);
}

interface Attached {
  readonly device: TrapDevice;
  readonly known: ThreadDevice;
}

/** An event that waits for `answer`. */
interface Pending {
  readonly eventFd: number;
  readonly device: TrapDevice;
  /** True when a former daemon read it: its number is not a descriptor of ours. */
  readonly stale: boolean;
}

class GroupTrap implements FanotifyTrap {
  readonly kind = 'fanotify';
  readonly recovered: boolean;
  readonly lost: boolean;
  readonly faults: FaultQueue = createFaultQueue();
  readonly #parts: GroupTrapComponents;
  readonly #onFatal: OnFatal;
  readonly #attached = new Map<number, Attached>();
  /** Devices whose mark was removed a moment ago, by id: their last events may be on their way. */
  readonly #leaving = new Map<number, Attached & { readonly cancel: AbortController }>();
  readonly #pending = new Map<Fault, Pending>();
  #thread: ReadingThread | undefined;
  #starting: Promise<void> | undefined;
  #ending: Promise<void> | undefined;
  #failed = false;
  #abandoned = false;
  #denied = 0;
  #recoveredFaults = 0;

  constructor(parts: GroupTrapComponents, onFatal: OnFatal) {
    this.#parts = parts;
    this.#onFatal = onFatal;
    this.recovered = parts.inheritance.kept !== undefined;
    this.lost = parts.inheritance.lost;
  }

  async attach(device: TrapDevice): Promise<string> {
    this.#refuseWhenEnding();
    const before = this.#attached.get(device.id);
    if (before?.device === device) return device.path;
    if (before !== undefined) throw idTaken(device, before.device);
    // nothing of it will ever be cold, and a mark would cost every read an event
    if (device.presence.complete && !this.recovered) return device.path;
    this.#leaving.get(device.id)?.cancel.abort();
    this.#leaving.delete(device.id);
    const { dev, ino } = fstatSync(device.fd);
    const { blockCount, bytes } = device.presence;
    const known: ThreadDevice = { id: device.id, filesystem: dev, inode: ino, blockCount, presence: bytes };
    // known before marked: an event of an unknown file is denied
    this.#attached.set(device.id, { device, known });
    await this.#thread?.attach(known);
    try {
      markPreAccess(this.#parts.held.group, device.fd);
    } catch (cause) {
      this.#attached.delete(device.id);
      await this.#thread?.forget(known);
      throw markError(device, cause);
    }
    // marked by a former daemon, whose last events may still be waiting
    if (device.presence.complete) await this.detach(device);
    return device.path;
  }

  async detach(device: TrapDevice): Promise<void> {
    const attached = this.#attached.get(device.id);
    if (attached === undefined || this.#ending !== undefined) return;
    this.#attached.delete(device.id);
    if (device.presence.complete) {
      unmarkPreAccess(this.#parts.held.group, attached.device.fd);
      this.#forgetLater(attached);
      return;
    }
    // the mark stays until the file is deleted: who still reads, through a mount that was detached lazily, is denied
    // as a reader of an unknown file; without a mark the second try of a denied read would see a hole
    await this.#thread?.forget(attached.known);
    this.#denyPending((pending) => pending.device.id === device.id);
  }

  start({ knowsAll = false } = {}): Promise<void> {
    this.#refuseWhenEnding();
    this.#starting ??= this.#start(knowsAll);
    return this.#starting;
  }

  answer(fault: Fault, answer: FaultAnswer): void {
    const pending = this.#pending.get(fault);
    if (pending === undefined) return;
    this.#pending.delete(fault);
    if (answer !== 'filled') {
      this.#settle(pending, denyResponse(answer));
      return;
    }
    if (isPresent(pending.device, fault)) {
      this.#settle(pending, FAN.ALLOW);
      return;
    }
    const facts = { blob: pending.device.name, offset: fault.offset, length: fault.length };
    this.#parts.log.error('a read was answered as filled, but its bytes are not there: denied', facts);
    this.#settle(pending, DENY_EIO);
  }

  stats(): TrapStats {
    const { warm, cold, denied } = this.#thread?.counters ?? { warm: 0, cold: 0, denied: 0 };
    return { warm, cold: cold + this.#recoveredFaults, denied: denied + this.#denied };
  }

  close(): Promise<void> {
    this.#ending ??= this.#close();
    return this.#ending;
  }

  abandon(): Promise<void> {
    this.#ending ??= this.#abandon();
    return this.#ending;
  }

  async #start(knowsAll: boolean): Promise<void> {
    const { held, stale, maxInFlight } = this.#parts;
    const devices = [...this.#attached.values(), ...this.#leaving.values()];
    for (const entry of stale.entries) {
      const owners = devices.filter(({ known }) => isOf(entry, known, knowsAll)).map(({ device }) => device);
      this.#recover(entry, owners);
    }
    this.#thread = await startReadingThread(
      { notice: (notice) => this.#onNotice(notice), died: (error) => this.#fail(error) },
      {
        group: held.group,
        journalFd: held.journal,
        maxInFlight,
        devices: devices.map((d) => d.known),
      },
    );
    // attached while the thread started: registering twice changes nothing
    for (const { known } of this.#attached.values()) await this.#thread.attach(known);
  }

  /** Hands out an event that a former daemon read: allowed once every device it may be of has its range. */
  #recover({ eventFd, offset, length }: JournalEntry, owners: readonly TrapDevice[]): void {
    if (owners.length === 0) {
      this.#settle({ eventFd, stale: true }, DENY_EIO);
      return;
    }
    this.#recoveredFaults += 1;
    this.#parts.stale.share(eventFd, owners.length);
    for (const device of owners) {
      const fault = wholeBlocks(device, offset, length);
      const pending = { eventFd, device, stale: true };
      if (fault === undefined) this.#settle(pending, FAN.ALLOW);
      else this.#admit(fault, pending);
    }
  }

  /** Hands a fault out, or answers it at once when it was filled meanwhile or nothing may be filled any more. */
  #admit(fault: Fault, pending: Pending): void {
    // nobody fills a device that is detached
    const mayFill = !this.#failed && this.#attached.has(fault.device);
    if (isPresent(pending.device, fault)) this.#settle(pending, FAN.ALLOW);
    else if (!mayFill) this.#settle(pending, DENY_EIO);
    else {
      this.#pending.set(fault, pending);
      this.faults.push(fault);
    }
  }

  #settle({ eventFd, stale }: Pick<Pending, 'eventFd' | 'stale'>, response: number): void {
    const { responder, journal } = this.#parts;
    const denies = response === FAN.ALLOW ? 0 : 1;
    if (stale) {
      if (this.#parts.stale.settle(eventFd, response)) this.#denied += denies;
      return;
    }
    this.#denied += denies;
    responder.respond(eventFd, response);
    // before the close: after it the number may belong to the next event
    journal.clear(eventFd);
    responder.close(eventFd);
    this.#thread?.closedOne();
  }

  #onNotice(notice: Exclude<Notice, { kind: 'ready' | 'done' }>): void {
    if (notice.kind === 'faults') this.#onFaults(notice.words);
    else if (notice.kind === 'denied') {
      const { reason, count, inode } = notice;
      this.#parts.log.warn(`reads denied: ${reason}`, { count, inode });
    } else this.#fail(new ShoalError('TRAP_UNAVAILABLE', notice.message));
  }

  #onFaults(words: readonly number[]): void {
    for (let at = 0; at < words.length; at += FAULT_WORDS) {
      const [eventFd, id, offset, length] = words.slice(at, at + FAULT_WORDS) as [number, number, number, number];
      const device = this.#attached.get(id)?.device ?? this.#leaving.get(id)?.device;
      const pending = { eventFd, stale: false };
      // abandoned: the journal keeps it for the next daemon
      if (this.#abandoned) this.#parts.responder.close(eventFd);
      else if (device === undefined) this.#settle(pending, DENY_EIO);
      else this.#admit({ device: id, offset, length }, { ...pending, device });
    }
  }

  #forgetLater(attached: Attached): void {
    const { known } = attached;
    const cancel = new AbortController();
    this.#leaving.set(known.id, { ...attached, cancel });
    const forget = async (): Promise<void> => {
      await this.#parts.clock.sleep(FORGET_MS, { signal: cancel.signal });
      this.#leaving.delete(known.id);
      await this.#thread?.forget(known);
    };
    forget().catch(() => {}); // only the abort rejects
  }

  #fail(error: ShoalError): void {
    if (this.#failed || this.#ending !== undefined) return;
    this.#denyEverything();
    this.#onFatal(error);
  }

  #denyEverything(): void {
    this.#failed = true;
    this.#thread?.deny();
    this.#denyPending(() => true);
  }

  #denyPending(which: (pending: Pending) => boolean): void {
    for (const [fault, pending] of this.#pending) {
      if (!which(pending)) continue;
      this.#pending.delete(fault);
      this.#settle(pending, DENY_EIO);
    }
  }

  async #close(): Promise<void> {
    await this.#starting?.catch(() => {});
    this.#denyEverything();
    await this.#thread?.stop();
    this.#denyEverything();
    for (const { eventFd } of this.#parts.stale.entries) this.#parts.stale.settle(eventFd, DENY_EIO);
    await this.#parts.keeper.end();
    this.#release();
  }

  async #abandon(): Promise<void> {
    await this.#starting?.catch(() => {});
    this.#abandoned = true;
    await this.#thread?.stop();
    this.#parts.keeper.leave();
    this.#parts.stale.release();
    for (const { eventFd, stale } of this.#pending.values()) if (!stale) closeRaw(eventFd);
    this.#pending.clear();
    this.#release();
  }

  #release(): void {
    this.faults.end();
    for (const { cancel } of this.#leaving.values()) cancel.abort();
    this.#attached.clear();
    this.#parts.journal.unmap();
    closeRaw(this.#parts.held.journal);
    closeRaw(this.#parts.held.group);
  }

  #refuseWhenEnding(): void {
    if (this.#ending !== undefined) throw new ShoalError('FAILED_PRECONDITION', 'the fanotify trap is closed');
  }
}
