import { fstatSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { BLOCK_BYTES, blocksPresent } from '../../core/block-map.ts';
import { createResponder, denyResponse, FAN } from '../../kernel/fanotify.ts';
import { ERRNO, errnoName, pollRaw, readRaw } from '../../kernel/libc.ts';
import { decodeEvent, emptyEvent, markHandled, type PreContentEvent } from './event.ts';
import { type Journal, openJournal } from './journal.ts';
import {
  COUNTER,
  type Command,
  type DenyReason,
  FLAG,
  type Notice,
  type ThreadDevice,
  type ThreadInit,
} from './thread-protocol.ts';

/**
 * The thread that reads the group. It blocks in poll(2), never in JavaScript's event loop; answers what is on disk by
 * itself, journals the rest and hands it to the main thread. Nothing on the warm path allocates, but for fstat's result.
 */

const EVENT_BYTES = 48;
const POLLIN = 1;
/** How long the thread may keep a process from exiting whose `exit` event was not seen. */
const POLL_MS = 1000;
/**
 * A reader comes back within some 50 µs of its answer; sleeping meanwhile costs it an idle processor's wake-up, several
 * times the answer itself. Not where the reader needs this very processor.
 */
const SPIN_MS = availableParallelism() > 1 ? 0.1 : 0;
/** Wait after read(2) found no free descriptor: each try costs a reader its event. */
const NO_DESCRIPTOR_WAIT_MS = 10;
/** At most one notice per reason in this time. */
const DENIED_NOTICE_MS = 1000;
const DENY_EIO = denyResponse('EIO');
const DENY_EPERM = denyResponse('EPERM');

const init = workerData as ThreadInit;
const { group, flags, counters } = init;
const ownPid = process.pid;
const journal = mappedJournal();
const responder = createResponder(group);
const devices = new Map<number, Map<number, ThreadDevice>>();
const buffer = journal.batch;
const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
const event = emptyEvent();
const polled = new Int32Array([group, POLLIN, init.wakeFd, POLLIN]);
const polledBytes = new Uint8Array(polled.buffer);
const wakeCount = new Uint8Array(8);
const denials = new Map<DenyReason, { count: number; noticedAt: number }>();
let cold: number[] = [];
let lastEventMs = Number.NEGATIVE_INFINITY;

for (const device of init.devices) register(device);
send({ kind: 'ready' });
serve();

function mappedJournal(): Journal {
  const found = openJournal(init.journalFd);
  if (found === undefined) throw new Error('the journal is no journal');
  return found;
}

function serve(): void {
  for (;;) {
    const throttled = throttle();
    polled[0] = throttled ? -1 : group; // poll ignores negative descriptors
    const ready = waitForEvents();
    if (flags[FLAG.EXITING] === 1) return;
    if (ready < 0 && ready !== -ERRNO.EINTR) {
      fatal(`poll: ${errnoName(-ready)}`);
      return;
    }
    if (ready <= 0) continue;
    if ((polled[3] as number) >> 16 !== 0 && obey()) return;
    if (throttled || (polled[1] as number) >> 16 === 0) continue;
    if (!readEvents()) return;
    lastEventMs = performance.now();
  }
}

/** poll(2), first without sleeping for as long as the reader that was just answered may be about to ask again. */
function waitForEvents(): number {
  const spinUntil = lastEventMs + SPIN_MS;
  while (performance.now() < spinUntil) {
    const ready = pollRaw(polledBytes, 0);
    if (ready !== 0) return ready;
  }
  return pollRaw(polledBytes, POLL_MS);
}

/** Reads until the queue is empty or too many events are open; false when the trap cannot go on. */
function readEvents(): boolean {
  for (;;) {
    const length = readRaw(group, buffer);
    if (length < 0) {
      if (length === -ERRNO.EAGAIN || length === -ERRNO.EINTR) return true;
      if (length !== -ERRNO.EMFILE) {
        fatal(`reading the fanotify group: ${errnoName(-length)}`);
        return false;
      }
      countDenied('no descriptor left', 0);
      pollRaw(polledBytes.subarray(8), NO_DESCRIPTOR_WAIT_MS);
      return true;
    }
    const whole = handleAll(length);
    flush();
    if (!whole) {
      fatal('the kernel sent a fanotify event that cannot be parsed');
      return true; // from here on every event is denied
    }
    // a read that did not fill the buffer emptied the queue
    if (length <= buffer.byteLength - EVENT_BYTES) return true;
    if (throttle()) return true;
  }
}

function handleAll(length: number): boolean {
  for (let at = 0; at < length; ) {
    const start = at;
    at = decodeEvent(view, at, length, event);
    if (at < 0) return false;
    if (event.fd >= 0) handle(event);
    else if ((event.mask & FAN.Q_OVERFLOW) !== 0) fatal('the fanotify queue overflowed: reads may have seen holes');
    markHandled(view, start);
  }
  buffer.fill(0, 0, length);
  return true;
}

function handle(event: PreContentEvent): void {
  const { fd } = event;
  // the daemon's own writes through a descriptor opened after the mark; it never reads through a lazy mount
  if (event.pid === ownPid) conclude(fd, FAN.ALLOW, COUNTER.OWN);
  else if (flags[FLAG.FAILED] === 1) deny(fd, DENY_EIO, 'trap failed', 0);
  else if (!event.wellFormed) deny(fd, DENY_EIO, 'malformed event', 0);
  else if (event.length === 0) deny(fd, DENY_EPERM, 'truncate', 0);
  else {
    const { dev, ino } = fstatSync(fd);
    const device = devices.get(dev)?.get(ino);
    if (device === undefined) deny(fd, DENY_EIO, 'unknown file', ino);
    else serveRead(event, device);
  }
}

function serveRead({ fd, offset, length }: PreContentEvent, device: ThreadDevice): void {
  const first = Math.floor(offset / BLOCK_BYTES);
  const end = Math.min(Math.ceil((offset + length) / BLOCK_BYTES), device.blockCount);
  if (blocksPresent(device.presence, first, end)) {
    conclude(fd, FAN.ALLOW, COUNTER.WARM);
    return;
  }
  const start = first * BLOCK_BYTES;
  const bytes = end * BLOCK_BYTES - start;
  journal.record(fd, device.filesystem, device.inode, start, bytes);
  Atomics.add(flags, FLAG.IN_FLIGHT, 1);
  bump(COUNTER.COLD);
  cold.push(fd, device.id, start, bytes);
}

function conclude(fd: number, response: number, counter: number): void {
  responder.respond(fd, response);
  responder.close(fd);
  bump(counter);
}

function deny(fd: number, response: number, reason: DenyReason, inode: number): void {
  conclude(fd, response, COUNTER.DENIED);
  countDenied(reason, inode);
}

function countDenied(reason: DenyReason, inode: number): void {
  let denial = denials.get(reason);
  if (denial === undefined) {
    denial = { count: 0, noticedAt: Number.NEGATIVE_INFINITY };
    denials.set(reason, denial);
  }
  denial.count += 1;
  const now = performance.now();
  if (now - denial.noticedAt < DENIED_NOTICE_MS) return;
  send({ kind: 'denied', reason, count: denial.count, inode });
  denial.noticedAt = now;
  denial.count = 0;
}

function flush(): void {
  if (cold.length === 0) return;
  send({ kind: 'faults', words: cold });
  cold = [];
}

function throttle(): boolean {
  if ((flags[FLAG.IN_FLIGHT] as number) < init.maxInFlight) return false;
  Atomics.store(flags, FLAG.THROTTLED, 1);
  // the main thread may have answered meanwhile, without seeing the flag
  if (Atomics.load(flags, FLAG.IN_FLIGHT) >= init.maxInFlight) return true;
  Atomics.store(flags, FLAG.THROTTLED, 0);
  return false;
}

/** Carries out what the main thread asks; true when it asked to stop. */
function obey(): boolean {
  readRaw(init.wakeFd, wakeCount);
  for (;;) {
    const received = receiveMessageOnPort(init.port) as { message: Command } | undefined;
    if (received === undefined) return false;
    const command = received.message;
    if (command.kind === 'attach') register(command.device);
    if (command.kind === 'forget') forget(command.device);
    // a failed trap leaves nothing unanswered behind; an abandoned one leaves it to the next daemon
    if (command.kind === 'stop' && flags[FLAG.FAILED] === 1) readEvents();
    send({ kind: 'done', token: command.token });
    if (command.kind === 'stop') {
      journal.unmap();
      init.port.close();
      return true;
    }
  }
}

function register(device: ThreadDevice): void {
  let ofFilesystem = devices.get(device.filesystem);
  if (ofFilesystem === undefined) {
    ofFilesystem = new Map();
    devices.set(device.filesystem, ofFilesystem);
  }
  ofFilesystem.set(device.inode, device);
}

function forget(device: ThreadDevice): void {
  const ofFilesystem = devices.get(device.filesystem);
  if (ofFilesystem?.get(device.inode)?.id === device.id) ofFilesystem.delete(device.inode);
}

function bump(counter: number): void {
  counters[counter] = (counters[counter] as number) + 1;
}

function fatal(message: string): void {
  Atomics.store(flags, FLAG.FAILED, 1);
  send({ kind: 'fatal', message });
}

function send(notice: Notice): void {
  init.port.postMessage(notice);
}
