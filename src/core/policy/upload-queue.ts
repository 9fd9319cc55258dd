import { UPLOAD_LIMITS } from './upload-limits.ts';

/** A neighbour's request for a chunk. */
export interface Upload<Id = string> {
  readonly peer: Id;
  readonly bytes: number;
  readonly urgency: 'demand' | 'prefetch';
  /** False: the neighbour chose this node by itself; no coordinator of a claim directed it here, one of a few. */
  readonly directed?: boolean;
}

/**
 * Which uploads run. Demand before prefetch; between neighbours, who has fewest under way, and of those who was served
 * longest ago; within bandwidth. Pure: time comes from outside.
 */
export interface UploadQueue<T extends Upload<unknown>> {
  /** Takes the request, or gives the ms after which it may be made again. */
  add(upload: T, nowMs: number): number | undefined;
  /** The next upload that may start now; to be called until it gives undefined. */
  next(nowMs: number): T | undefined;
  /** Ms until bandwidth allows the next to start; undefined when something else is waited for, or nothing. */
  waitMs(nowMs: number): number | undefined;
  /** An upload that was given out by `next` is over. */
  finished(upload: T): void;
  /** One that waits is not wanted any more; false when it does not wait. */
  remove(upload: T): boolean;
  readonly active: number;
  readonly queued: number;
}

/** The numbers of UPLOAD_LIMITS, or others. */
export type UploadLimits = Record<keyof typeof UPLOAD_LIMITS, number>;

/** What an upload queue goes by: UPLOAD_LIMITS where nothing else is said. */
export interface UploadQueueInit {
  /** 0: no limit. */
  readonly bytesPerSecond: number;
  readonly slots?: number;
  /** Other limits, e.g. of a simulation in which one upload stands for several. Queues may share them. */
  readonly limits?: UploadLimits;
}

/** An empty queue. */
export function createUploadQueue<T extends Upload<unknown>>(init: UploadQueueInit): UploadQueue<T> {
  const { bytesPerSecond, limits = UPLOAD_LIMITS, slots = limits.slots } = init;
  return new FairQueue<T>(bytesPerSecond / 1_000, slots === limits.slots ? limits : { ...limits, slots });
}

interface Peer {
  active: number;
  /** Of both urgencies. */
  waiting: number;
  /** Turn in which it was served last. */
  servedAt: number;
}

/**
 * Uploads that wait, in the order of their coming, and whose they are, side by side: the first `size` of lists that never
 * shrink.
 */
interface Waiting<T> {
  readonly uploads: (T | undefined)[];
  readonly peers: (Peer | undefined)[];
  size: number;
}

class FairQueue<T extends Upload<unknown>> implements UploadQueue<T> {
  readonly #bytesPerMs: number;
  readonly #limits: UploadLimits;
  /** Those with uploads that wait or run. */
  readonly #peers = new Map<T['peer'], Peer>();
  readonly #waiting: Record<Upload['urgency'], Waiting<T>> = {
    demand: { uploads: [], peers: [], size: 0 },
    prefetch: { uploads: [], peers: [], size: 0 },
  };
  #turn = 0;
  #active = 0;
  #activeBytes = 0;
  #queued = 0;
  #queuedBytes = 0;
  /** Bytes that may be sent now; below zero after a chunk that was larger. */
  #credit: number;
  #creditAtMs: number | undefined;

  constructor(bytesPerMs: number, limits: UploadLimits) {
    this.#bytesPerMs = bytesPerMs;
    this.#limits = limits;
    this.#credit = this.#burst;
  }

  get active(): number {
    return this.#active;
  }

  get queued(): number {
    return this.#queued;
  }

  add(upload: T, nowMs: number): number | undefined {
    const { queued, queuedPerPeer, maxQueueMs, retryAfterMs } = this.#limits;
    const { undirected, undirectedRetryMs } = this.#limits;
    if (upload.directed === false && this.#active + this.#queued >= undirected) return undirectedRetryMs;
    const known = this.#peers.get(upload.peer);
    if (this.#queued >= queued || (known?.waiting ?? 0) >= queuedPerPeer) return retryAfterMs;
    if (this.#bytesPerMs > 0 && this.#queued > 0) {
      this.#earn(nowMs);
      const queueMs = (this.#queuedBytes - this.#credit) / this.#bytesPerMs;
      // Demand goes to the front, so only what is very long already is refused.
      if (queueMs > maxQueueMs * (upload.urgency === 'demand' ? 2 : 1)) return Math.max(retryAfterMs, queueMs / 2);
    }
    // Newcomers stand behind those who have waited, not before.
    const peer = known ?? { active: 0, waiting: 0, servedAt: this.#turn };
    if (known === undefined) this.#peers.set(upload.peer, peer);
    const waiting = this.#waiting[upload.urgency];
    waiting.uploads[waiting.size] = upload;
    waiting.peers[waiting.size] = peer;
    waiting.size += 1;
    peer.waiting += 1;
    this.#queued += 1;
    this.#queuedBytes += upload.bytes;
    return undefined;
  }

  next(nowMs: number): T | undefined {
    if (this.#queued === 0 || this.#active >= this.#limits.slots) return undefined;
    this.#earn(nowMs);
    if (this.#bytesPerMs > 0 && this.#credit <= 0) return undefined;
    const upload = this.#pick('demand') ?? (this.#prefetchMayStart() ? this.#pick('prefetch') : undefined);
    if (upload === undefined) return undefined;
    this.#active += 1;
    this.#activeBytes += upload.bytes;
    if (this.#bytesPerMs > 0) this.#credit -= upload.bytes;
    return upload;
  }

  waitMs(nowMs: number): number | undefined {
    if (this.#queued === 0 || this.#bytesPerMs === 0 || this.#active >= this.#limits.slots) return undefined;
    this.#earn(nowMs);
    return this.#credit > 0 ? undefined : -this.#credit / this.#bytesPerMs + 1;
  }

  finished(upload: T): void {
    this.#active -= 1;
    this.#activeBytes -= upload.bytes;
    const peer = this.#peers.get(upload.peer);
    if (peer === undefined) return;
    peer.active -= 1;
    this.#forgetIfIdle(upload.peer, peer);
  }

  remove(upload: T): boolean {
    const peer = this.#peers.get(upload.peer);
    if (peer === undefined) return false;
    const waiting = this.#waiting[upload.urgency];
    const index = waiting.uploads.indexOf(upload);
    if (index === -1) return false;
    this.#takeOut(waiting, index, peer);
    this.#forgetIfIdle(upload.peer, peer);
    return true;
  }

  get #burst(): number {
    return this.#bytesPerMs * this.#limits.burstMs;
  }

  #earn(nowMs: number): void {
    const since = nowMs - (this.#creditAtMs ?? nowMs);
    this.#creditAtMs = nowMs;
    this.#credit = Math.min(this.#burst, this.#credit + since * this.#bytesPerMs);
  }

  #prefetchMayStart(): boolean {
    return this.#active < Math.max(1, this.#limits.slots - this.#limits.demandSlots);
  }

  #pick(urgency: 'demand' | 'prefetch'): T | undefined {
    const waiting = this.#waiting[urgency];
    const { peers, size } = waiting;
    let at = -1;
    let best: Peer | undefined;
    for (let other = 0; other < size; other += 1) {
      const peer = peers[other] as Peer;
      if (best !== undefined && peer.active >= best.active) {
        if (peer.active > best.active || peer.servedAt >= best.servedAt) continue;
      }
      best = peer;
      at = other;
    }
    if (best === undefined) return undefined;
    const upload = waiting.uploads[at] as T;
    const room = this.#limits.inFlightBytes - this.#activeBytes;
    if (upload.bytes > room && this.#active > 0) return undefined;
    this.#takeOut(waiting, at, best);
    this.#turn += 1;
    best.servedAt = this.#turn;
    best.active += 1;
    return upload;
  }

  #takeOut(waiting: Waiting<T>, at: number, peer: Peer): void {
    const { uploads, peers } = waiting;
    const { bytes } = uploads[at] as T;
    waiting.size -= 1;
    for (let next = at; next < waiting.size; next += 1) {
      uploads[next] = uploads[next + 1];
      peers[next] = peers[next + 1];
    }
    uploads[waiting.size] = undefined;
    peers[waiting.size] = undefined;
    peer.waiting -= 1;
    this.#queued -= 1;
    this.#queuedBytes -= bytes;
  }

  #forgetIfIdle(name: T['peer'], { active, waiting }: Peer): void {
    if (active === 0 && waiting === 0) this.#peers.delete(name);
  }
}
