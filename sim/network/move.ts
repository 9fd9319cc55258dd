import { Flow } from './flow.ts';
import type { ByteSource, Host } from './host.ts';
import type { Books, Link } from './pipe.ts';
import type { Counters, Ended } from './world.ts';

/** Whoever waits for a transfer. */
export interface Awaiting {
  /** Called once, unless it was given up. */
  moveOver(how: Ended): void;
}

/** What a transfer between two hosts is. */
export interface MoveInit {
  readonly path: readonly Link[];
  readonly bytes: number;
  readonly from: Host;
  readonly source: ByteSource;
  readonly awaiting: Awaiting;
  /** It crosses zones. */
  readonly isFar: boolean;
}

/** A transfer between two hosts, counted when it ends. */
export class Move extends Flow {
  readonly #from: Host;
  readonly #source: ByteSource;
  readonly #awaiting: Awaiting;
  readonly #isFar: boolean;
  readonly #counters: Counters;
  #isCounted = false;

  constructor(network: Books, counters: Counters, init: MoveInit) {
    super(network, init.path, init.bytes);
    this.#from = init.from;
    this.#source = init.source;
    this.#awaiting = init.awaiting;
    this.#isFar = init.isFar;
    this.#counters = counters;
  }

  arrived(): void {
    if (this.#count()) this.#awaiting.moveOver('done');
  }

  override cancel(): void {
    super.cancel();
    this.#count();
  }

  /** One of its ends died. */
  lose(): void {
    super.cancel();
    if (this.#count()) this.#awaiting.moveOver('lost');
  }

  /** False when it was counted before. */
  #count(): boolean {
    if (this.#isCounted) return false;
    this.#isCounted = true;
    const moved = this.moved();
    this.#from.servedBytes += moved;
    const counters = this.#counters;
    counters.bytes[this.#source] += moved;
    if (this.#isFar && this.#source === 'neighbour') counters.crossZoneBytes += moved;
    return true;
  }
}
