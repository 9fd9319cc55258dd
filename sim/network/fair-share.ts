import { IndexedHeap } from '../engine/indexed-heap.ts';
import type { EventSource } from '../engine/timeline.ts';
import { type Flow, leastOffer, tightest, tooTight } from './flow.ts';
import type { Books, Link, Pipe } from './pipe.ts';
import { clearBound, noteReservation, noteReservations, PipeBooks } from './pipe.ts';

export type { Link, Transfer } from './pipe.ts';

/**
 * Links shared max-min fairly, kept up incrementally: a transfer that starts or ends touches the links on its path and
 * those whose share changes by more than the tolerance, never the whole network.
 */
export interface FairNetwork extends EventSource, Books {
  link(name: string, bytesPerMs: number): Link;
  /** Moves a transfer's bytes over every link of its path at once; tells it when the last one arrived. */
  begin(flow: Flow): void;
  /** What moves over any of these links, in the order of its beginning. */
  flowsOn(links: readonly Link[]): Flow[];
  /** Reviews of links so far: what the incremental sharing costs. */
  readonly reviews: number;
}

/**
 * How much a share may be below what max-min fairness gives before it is corrected: this bounds what is lost per link,
 * and how far a change travels. Links are never filled beyond their capacity, whatever the tolerance.
 */
export const FAIRNESS_TOLERANCE = 0.02;
/** Links reviewed for one event at most: what is left then is corrected with the next events that touch it. */
const MOST_REVIEWS = 2_000;
/** Below this many bytes a transfer has arrived: rounding. */
const ARRIVED_BYTES = 1e-6;

/** A network without links. */
export function createFairNetwork(components: { nowMs: () => number }, init: { tolerance?: number } = {}): FairNetwork {
  return new Network(components.nowMs, init.tolerance ?? FAIRNESS_TOLERANCE);
}

class Network implements FairNetwork {
  readonly nowMs: () => number;
  reviews = 0;
  readonly #tolerance: number;
  /** Links by the time of their next arrival. */
  readonly #arrivals = new IndexedHeap<Pipe>();
  /** The first so many of a list that is never shortened. */
  readonly #toReview: Pipe[] = [];
  #queued = 0;
  readonly #pipes: PipeBooks;
  /** Those bound at a pipe before some of them move; never shortened, which would allocate it anew. */
  readonly #scratch: Flow[] = [];
  #order = 0;

  constructor(nowMs: () => number, tolerance: number) {
    this.nowMs = nowMs;
    this.#pipes = new PipeBooks(this);
    this.#tolerance = tolerance;
  }

  link(name: string, bytesPerMs: number): Link {
    if (!(bytesPerMs > 0)) throw new RangeError(`link ${name} has no capacity`);
    this.#order += 1;
    return this.#pipes.make(name, bytesPerMs, this.#order);
  }

  begin(flow: Flow): void {
    this.#order += 1;
    flow.heapOrder = this.#order;
    this.#bind(flow, tightest(flow), flow.bytes);
    this.#settle();
  }

  flowsOn(links: readonly Link[]): Flow[] {
    const found = new Set<Flow>();
    for (const { bound, guests } of links as readonly Pipe[]) {
      for (const flow of bound.items) found.add(flow);
      for (const flow of guests) found.add(flow);
    }
    return [...found].sort((a, b) => a.heapOrder - b.heapOrder);
  }

  nextMs(): number {
    return this.#arrivals.firstKey;
  }

  fire(): void {
    const pipe = this.#arrivals.first;
    const flow = pipe?.bound.first;
    if (pipe === undefined || flow === undefined) return;
    const nowMs = this.nowMs();
    if (flow.remainingAt(nowMs) > ARRIVED_BYTES + pipe.share * 1e-9 * nowMs) {
      this.#schedule(pipe, nowMs);
      return;
    }
    this.end(flow, flow.bytes);
    flow.arrived();
  }

  /** Takes a transfer off its links. */
  end(flow: Flow, moved = flow.moved()): void {
    if (flow.isOver) return;
    flow.movedAtEnd = moved;
    const { binding } = flow;
    this.#serve(binding);
    flow.isOver = true;
    binding.bound.remove(flow);
    binding.sharers -= 1;
    if (binding.sharers === 0) clearBound(binding);
    for (let hop = 0; hop < flow.path.length; hop += 1) {
      const pipe = flow.path[hop] as Pipe;
      pipe.carriedDone += moved;
      if (pipe !== binding) this.#removeGuest(flow, hop, pipe);
      this.#queue(pipe);
    }
    this.#schedule(binding, this.nowMs());
    this.#settle();
  }

  /** Makes a flow that is nowhere bound at `pipe` and a guest on the rest of its path. */
  #bind(flow: Flow, pipe: Pipe, remaining: number): void {
    this.#serve(pipe);
    flow.binding = pipe;
    pipe.bound.add(flow, pipe.served + remaining);
    pipe.sharers += 1;
    const rate = leastOffer(flow);
    flow.reservation = rate;
    for (let hop = 0; hop < flow.path.length; hop += 1) {
      const other = flow.path[hop] as Pipe;
      if (other === pipe) continue;
      const { guests } = other;
      flow.guestAt[hop] = guests.length;
      guests[guests.length] = flow;
      other.reserved += rate;
      if (rate > other.fastestGuest) other.fastestGuest = rate;
      this.#lower(other);
      this.#queue(other);
    }
    if (flow.path.length > 1) noteReservation(pipe, rate);
    this.#setShare(pipe, Math.min(rate, pipe.leastReservation));
    this.#queue(pipe);
  }

  #unbind(flow: Flow): number {
    const { binding } = flow;
    const nowMs = this.nowMs();
    this.#serve(binding);
    const remaining = flow.remainingAt(nowMs);
    binding.bound.remove(flow);
    binding.sharers -= 1;
    if (binding.sharers === 0) clearBound(binding);
    for (let hop = 0; hop < flow.path.length; hop += 1) {
      const pipe = flow.path[hop] as Pipe;
      if (pipe !== binding) this.#removeGuest(flow, hop, pipe);
    }
    this.#schedule(binding, nowMs);
    this.#queue(binding);
    return remaining;
  }

  #move(flow: Flow, to: Pipe): void {
    this.#bind(flow, to, this.#unbind(flow));
  }

  #removeGuest(flow: Flow, hop: number, pipe: Pipe): void {
    const at = flow.guestAt[hop] as number;
    const last = pipe.guests.pop() as Flow;
    if (last !== flow) {
      pipe.guests[at] = last;
      last.guestAt[last.path.indexOf(pipe)] = at;
    }
    flow.guestAt[hop] = -1;
    pipe.reserved = pipe.guests.length === 0 ? 0 : Math.max(0, pipe.reserved - flow.reservation);
  }

  #queue(pipe: Pipe): void {
    if (pipe.isQueued) return;
    pipe.isQueued = true;
    this.#toReview[this.#queued] = pipe;
    this.#queued += 1;
  }

  #settle(): void {
    const queue = this.#toReview;
    let at = 0;
    for (; at < this.#queued && at < MOST_REVIEWS; at += 1) {
      const pipe = queue[at] as Pipe;
      pipe.isQueued = false;
      this.#review(pipe);
    }
    this.reviews += at;
    for (; at < this.#queued; at += 1) (queue[at] as Pipe).isQueued = false;
    this.#queued = 0;
  }

  #review(pipe: Pipe): void {
    const slack = 1 + this.#tolerance;
    this.#lower(pipe);
    if (pipe.sharers > 0 && pipe.fastestGuest > pipe.share * slack) this.#takeFastGuests(pipe);
    if (pipe.sharers > 0 && pipe.target() > pipe.share) this.#raise(pipe);
    if (pipe.sharers > 0 && pipe.mostReservation > pipe.share * slack) this.#giveBack(pipe);
  }

  /** A share that has become too large is lowered at once: capacity is never exceeded. */
  #lower(pipe: Pipe): void {
    if (pipe.sharers === 0) return;
    const target = pipe.target();
    if (target < pipe.share) this.#setShare(pipe, target);
  }

  /** Guests that are faster than those bound here become bound here. */
  #takeFastGuests(pipe: Pipe): void {
    const slack = 1 + this.#tolerance;
    let fastest = 0;
    for (let at = pipe.guests.length - 1; at >= 0; at -= 1) {
      const guest = pipe.guests[at];
      if (guest === undefined) continue;
      const rate = guest.binding.share;
      if (rate > pipe.target() * slack) this.#move(guest, pipe);
      else if (rate > fastest) fastest = rate;
    }
    pipe.fastestGuest = fastest;
  }

  /** Raises the share to what is left, as far as the other links of those bound here allow. */
  #raise(pipe: Pipe): void {
    const slack = 1 + this.#tolerance;
    if (pipe.target() <= pipe.leastReservation) {
      this.#setShare(pipe, pipe.target());
      return;
    }
    if (pipe.target() <= pipe.share * slack) {
      if (pipe.leastReservation > pipe.share) this.#setShare(pipe, pipe.leastReservation);
      return;
    }
    const { items } = pipe.bound;
    const { length } = items;
    const former = this.#scratch;
    for (let at = 0; at < length; at += 1) former[at] = items[at] as Flow;
    for (let at = 0; at < length; at += 1) {
      const flow = former[at] as Flow;
      const wanted = pipe.target();
      if (flow.reservation >= wanted || flow.binding !== pipe) continue;
      const tight = tooTight(flow, pipe, wanted);
      if (tight === undefined) this.#reserve(flow, pipe, wanted);
      else this.#move(flow, tight);
    }
    noteReservations(pipe);
    if (pipe.sharers > 0) this.#setShare(pipe, Math.min(pipe.target(), pipe.leastReservation));
  }

  #reserve(flow: Flow, pipe: Pipe, rate: number): void {
    const more = rate - flow.reservation;
    flow.reservation = rate;
    for (const other of flow.path) {
      if (other === pipe) continue;
      other.reserved += more;
      if (rate > other.fastestGuest) other.fastestGuest = rate;
      this.#lower(other);
      this.#queue(other);
    }
  }

  /** Lowers reservations that are larger than the share by more than the tolerance. */
  #giveBack(pipe: Pipe): void {
    const { share } = pipe;
    for (const flow of pipe.bound.items) {
      if (flow.reservation <= share * (1 + this.#tolerance)) continue;
      const less = flow.reservation - share;
      flow.reservation = share;
      for (const other of flow.path) {
        if (other === pipe) continue;
        other.reserved = Math.max(0, other.reserved - less);
        this.#queue(other);
      }
    }
    noteReservations(pipe);
  }

  #setShare(pipe: Pipe, share: number): void {
    if (share === pipe.share) {
      this.#schedule(pipe, this.nowMs());
      return;
    }
    this.#serve(pipe);
    pipe.share = share;
    this.#schedule(pipe, this.nowMs());
  }

  #serve(pipe: Pipe): void {
    const nowMs = this.nowMs();
    pipe.served = pipe.sharers === 0 ? 0 : pipe.servedBy(nowMs);
    pipe.servedAtMs = nowMs;
  }

  #schedule(pipe: Pipe, nowMs: number): void {
    const first = pipe.bound.first;
    if (first === undefined || pipe.share <= 0) {
      this.#arrivals.remove(pipe);
      return;
    }
    const remaining = Math.max(0, pipe.bound.firstKey - pipe.servedBy(nowMs));
    this.#arrivals.update(pipe, nowMs + remaining / pipe.share);
  }
}
