import type { Transfer } from './fair-share.ts';
import { type ByteSource, type Host, type HostTransfer, leave } from './host.ts';
import type { Counters, Ended } from './world.ts';

/** What a transfer between two hosts is. */
export interface MoveInit {
  readonly from: Host;
  readonly to: Host;
  readonly source: ByteSource;
  readonly over: (how: Ended) => void;
  readonly order: number;
  /** It crosses zones. */
  readonly isFar: boolean;
}

/** A transfer between two hosts, entered at both. */
export class Move implements Transfer, HostTransfer {
  inner: Transfer | undefined;
  fromAt = -1;
  toAt = -1;
  readonly from: Host;
  readonly order: number;
  readonly #to: Host;
  readonly #source: ByteSource;
  readonly #over: (how: Ended) => void;
  readonly #isFar: boolean;
  readonly #counters: Counters;
  #isOver = false;

  constructor(counters: Counters, init: MoveInit) {
    this.from = init.from;
    this.order = init.order;
    this.#to = init.to;
    this.#source = init.source;
    this.#over = init.over;
    this.#isFar = init.isFar;
    this.#counters = counters;
  }

  get bytes(): number {
    return this.inner?.bytes ?? 0;
  }

  moved(): number {
    return this.inner?.moved() ?? 0;
  }

  cancel(): void {
    this.#finish();
  }

  end(how: Ended): void {
    if (this.#finish()) this.#over(how);
  }

  #finish(): boolean {
    if (this.#isOver) return false;
    this.#isOver = true;
    this.inner?.cancel();
    leave(this, this.#to);
    const moved = this.moved();
    this.from.servedBytes += moved;
    const counters = this.#counters;
    counters.bytes[this.#source] += moved;
    if (this.#isFar && this.#source === 'neighbour') counters.crossZoneBytes += moved;
    return true;
  }
}
