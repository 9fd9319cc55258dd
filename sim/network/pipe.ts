import { type HeapItem, IndexedHeap } from '../engine/indexed-heap.ts';
import type { Flow } from './flow.ts';

/** A one-way pipe of fixed capacity that transfers share. */
export interface Link {
  readonly name: string;
  readonly bytesPerMs: number;
  /** Bytes that transfers over this link have moved until now. */
  carriedBytes(): number;
  /** Bytes per ms that move right now. */
  rate(): number;
  /** Transfers on it. */
  readonly transfers: number;
}

/** Bytes on their way. */
export interface Transfer {
  readonly bytes: number;
  /** Bytes that arrived until now. */
  moved(): number;
  /** Ends it where it is; `done` is not called. Nothing when it ended already. */
  cancel(): void;
}

/** What links and transfers need of their network. */
export interface Books {
  readonly nowMs: () => number;
  /** Takes a transfer off its links. */
  end(flow: Flow): void;
}

/** Numbers of one pipe in the books: those of a link that is looked at lie side by side. */
const SHARE = 0;
const RESERVED = 1;
const SERVED = 2;
const SERVED_AT = 3;
const LEAST_RESERVATION = 4;
const MOST_RESERVATION = 5;
const FASTEST_GUEST = 6;
const CAPACITY = 7;
const STRIDE = 8;
/** Pipes in one array of the books. */
const BLOCK = 512;

/** Makes pipes whose numbers share arrays. */
export class PipeBooks {
  readonly #network: Books;
  #numbers = new Float64Array();
  #made = 0;

  constructor(network: Books) {
    this.#network = network;
  }

  make(name: string, bytesPerMs: number, order: number): Pipe {
    const at = this.#made % BLOCK;
    if (at === 0) this.#numbers = new Float64Array(BLOCK * STRIDE);
    this.#made += 1;
    return new Pipe(this.#network, { name, bytesPerMs, order, numbers: this.#numbers, at: at * STRIDE });
  }
}

/**
 * The links' books. A transfer is *bound* by one link of its path, where it gets the same share as all that are bound
 * there; on its other links it is a *guest* with a reservation at least as large as that share. A link's share is what
 * its guests leave, divided by those bound there. Lowering a share is always safe. Raising it first raises the
 * reservations, and where there is no room for that the transfer becomes bound there instead.
 *
 * All that are bound by one link move equally fast, so each is done when the link's count of bytes per transfer
 * (`served`) reaches its own mark: changing the share moves one event, not all of them.
 */
export class Pipe implements Link, HeapItem {
  readonly name: string;
  readonly heapOrder: number;
  heapAt = -1;
  /** By the mark of `served` at which each has arrived. */
  readonly bound = new IndexedHeap<Flow>();
  /** How many those are. */
  sharers = 0;
  readonly guests: Flow[] = [];
  isQueued = false;
  carriedDone = 0;
  readonly numbers: Float64Array;
  readonly at: number;
  readonly #network: Books;

  constructor(
    network: Books,
    init: { name: string; bytesPerMs: number; order: number; numbers: Float64Array; at: number },
  ) {
    this.#network = network;
    this.name = init.name;
    this.heapOrder = init.order;
    this.numbers = init.numbers;
    this.at = init.at;
    this.numbers[this.at + CAPACITY] = init.bytesPerMs;
    this.leastReservation = Number.POSITIVE_INFINITY;
  }

  get bytesPerMs(): number {
    return this.numbers[this.at + CAPACITY] as number;
  }

  /** Bytes per ms of each transfer bound here, as in force. */
  get share(): number {
    return this.numbers[this.at + SHARE] as number;
  }

  set share(share: number) {
    this.numbers[this.at + SHARE] = share;
  }

  /** Sum of the guests' reservations. */
  get reserved(): number {
    return this.numbers[this.at + RESERVED] as number;
  }

  set reserved(rate: number) {
    this.numbers[this.at + RESERVED] = rate;
  }

  /** Bytes each transfer that was always bound here would have moved by `servedAtMs`. */
  get served(): number {
    return this.numbers[this.at + SERVED] as number;
  }

  set served(bytes: number) {
    this.numbers[this.at + SERVED] = bytes;
  }

  get servedAtMs(): number {
    return this.numbers[this.at + SERVED_AT] as number;
  }

  set servedAtMs(ms: number) {
    this.numbers[this.at + SERVED_AT] = ms;
  }

  /** No transfer bound here has a smaller reservation elsewhere than this. */
  get leastReservation(): number {
    return this.numbers[this.at + LEAST_RESERVATION] as number;
  }

  set leastReservation(rate: number) {
    this.numbers[this.at + LEAST_RESERVATION] = rate;
  }

  /** The same for larger ones. */
  get mostReservation(): number {
    return this.numbers[this.at + MOST_RESERVATION] as number;
  }

  set mostReservation(rate: number) {
    this.numbers[this.at + MOST_RESERVATION] = rate;
  }

  /** No guest is faster than this. */
  get fastestGuest(): number {
    return this.numbers[this.at + FASTEST_GUEST] as number;
  }

  set fastestGuest(rate: number) {
    this.numbers[this.at + FASTEST_GUEST] = rate;
  }

  get transfers(): number {
    return this.sharers + this.guests.length;
  }

  rate(): number {
    let sum = this.sharers * this.share;
    for (const guest of this.guests) sum += guest.binding.share;
    return sum;
  }

  carriedBytes(): number {
    const nowMs = this.#network.nowMs();
    let sum = this.carriedDone;
    for (const flow of this.bound.items) sum += flow.movedAt(nowMs);
    for (const flow of this.guests) sum += flow.movedAt(nowMs);
    return sum;
  }

  servedBy(nowMs: number): number {
    return this.served + this.share * (nowMs - this.servedAtMs);
  }

  /** What those bound here could have each; with none bound, what the next one could have. */
  target(): number {
    return Math.max(0, this.bytesPerMs - this.reserved) / Math.max(1, this.sharers);
  }
}

/** Nobody is bound there any more. */
export function clearBound(pipe: Pipe): void {
  pipe.share = 0;
  pipe.served = 0;
  pipe.leastReservation = Number.POSITIVE_INFINITY;
  pipe.mostReservation = 0;
}

/** One that is bound at the pipe has this reservation elsewhere. */
export function noteReservation(pipe: Pipe, reservation: number): void {
  if (reservation < pipe.leastReservation) pipe.leastReservation = reservation;
  if (reservation > pipe.mostReservation) pipe.mostReservation = reservation;
}

/** The same for all of them, from scratch. */
export function noteReservations(pipe: Pipe): void {
  const { items } = pipe.bound;
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (let at = 0; at < items.length; at += 1) {
    const { path, reservation } = items[at] as Flow;
    if (path.length === 1) continue;
    if (reservation < least) least = reservation;
    if (reservation > most) most = reservation;
  }
  pipe.leastReservation = least;
  pipe.mostReservation = most;
}
