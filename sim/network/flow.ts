import type { HeapItem } from '../engine/indexed-heap.ts';
import type { Books, Link, Pipe, Transfer } from './pipe.ts';

/** A transfer as the network has it, from `FairNetwork.begin` on. */
export abstract class Flow implements Transfer, HeapItem {
  readonly bytes: number;
  readonly path: readonly Pipe[];
  heapOrder = 0;
  heapAt = -1;
  binding: Pipe;
  /** What its other links keep free for it, bytes per ms. */
  reservation = 0;
  /** Its place among the guests of each link of its path; -1 where it is bound. */
  readonly guestAt: number[];
  isOver = false;
  movedAtEnd = 0;
  readonly #network: Books;

  constructor(network: Books, path: readonly Link[], bytes: number) {
    const [first] = path;
    if (first === undefined) throw new RangeError('a transfer needs a link');
    this.#network = network;
    this.path = path as readonly Pipe[];
    this.bytes = bytes;
    this.binding = first as Pipe;
    this.guestAt = path.length === 2 ? [-1, -1] : path.map(notAGuest);
  }

  /** The last byte arrived. */
  abstract arrived(): void;

  remainingAt(nowMs: number): number {
    if (this.isOver) return this.bytes - this.movedAtEnd;
    const { binding } = this;
    return Math.max(0, binding.bound.keyOf(this) - binding.servedBy(nowMs));
  }

  movedAt(nowMs: number): number {
    return Math.min(this.bytes, this.bytes - this.remainingAt(nowMs));
  }

  moved(): number {
    return this.movedAt(this.#network.nowMs());
  }

  cancel(): void {
    this.#network.end(this);
  }
}

const notAGuest = (): number => -1;

/** The link of a new transfer's path that would give it least. */
export function tightest(flow: Flow): Pipe {
  let best = flow.path[0] as Pipe;
  let least = Number.POSITIVE_INFINITY;
  for (const pipe of flow.path) {
    const offer = Math.max(0, pipe.bytesPerMs - pipe.reserved) / (pipe.sharers + 1);
    if (offer < least) [best, least] = [pipe, offer];
  }
  return best;
}

/** What every link of the path can give a flow that is bound at one of them and a guest nowhere yet. */
export function leastOffer(flow: Flow): number {
  let least = Number.POSITIVE_INFINITY;
  for (const pipe of flow.path) {
    const sharers = pipe === flow.binding ? pipe.sharers : pipe.sharers + 1;
    const offer = Math.max(0, pipe.bytesPerMs - pipe.reserved) / sharers;
    if (offer < least) least = offer;
  }
  return least;
}

/** The link of the path that cannot give the flow `wanted`; undefined when all can. */
export function tooTight(flow: Flow, pipe: Pipe, wanted: number): Pipe | undefined {
  let tight: Pipe | undefined;
  let least = wanted;
  for (const other of flow.path) {
    if (other === pipe) continue;
    const offer = (other.bytesPerMs - other.reserved + flow.reservation) / (other.sharers + 1);
    if (offer < least) [tight, least] = [other, offer];
  }
  return tight;
}
