import type { Clock } from '../../clock.ts';
import type { Digest } from '../../core/digest.ts';
import { oneAtATime } from '../../core/turns.ts';
import type { Logger } from '../../log.ts';
import { chunkKey, KEY_BYTES, placeOfKey } from './chunk-key.ts';
import type { HeldChunks } from './directory.ts';
import { createKeyQueue } from './key-queue.ts';
import { SWARM_LIMITS } from './limits.ts';
import { createOutbox } from './outbox.ts';
import type { PeerTable } from './peer-table.ts';
import { isSamePlacement, newHolders, type Placement, placementOf } from './placement.ts';

/** Tells the peers closest to each chunk's key that this node holds it, and keeps that true. */
export interface Announcer {
  announce(digests: readonly Digest[]): void;
  withdraw(digests: readonly Digest[]): void;
  /** Resolves when everything handed over so far is acknowledged, or given up on. */
  settled(): Promise<void>;
  /** Records that were acknowledged since the start, copies counted. */
  readonly acknowledged: number;
  /** Sends what waits, within `graceMs`, and writes the marker. Idempotent. */
  stop(options?: { graceMs: number }): Promise<void>;
}

export interface AnnouncerComponents {
  readonly table: PeerTable;
  readonly held: HeldChunks;
  readonly clock: Clock;
  readonly log: Logger;
  /** Sends one batch and resolves when it is acknowledged; this node's own records go to its own index. */
  readonly send: (to: string, what: 'announce' | 'withdraw', keys: Uint8Array) => Promise<void>;
  readonly marker: AnnounceMarker;
}

/** What is kept of earlier announcements, so that a restart does not repeat those that are fresh. */
export interface AnnounceMarker {
  /** Where records were placed, and when the last full round began (wall clock); undefined when not known. */
  read(): { placement: Placement; roundMs: number } | undefined;
  /** `isComplete` false: what is on disk does not hold any more. */
  write(state: { placement: Placement | undefined; roundMs: number; isComplete: boolean }): Promise<void>;
}

/** Keys handled before others get a turn: about 2 ms. */
const SLICE_KEYS = 512;
/** Changes of who is there are collected this long, so that many that join together cost one look at all chunks. */
const QUIET_MS = 1_000;
const QUIET_LONGEST_MS = 5_000;
/** Times a lost batch is placed anew before it waits for the next round. */
const ATTEMPTS = 3;
/** A withdrawal also goes to this many beyond the closest: who was among them a moment ago. */
const WITHDRAW_BEYOND = 2;
/** Least keys per second of the even rate, so that few chunks do not take hours. */
const ROUND_KEYS_PER_SECOND_MIN = 50;

/** Starts to announce; `replication` is how many peers get each record. */
export function startAnnouncer(components: AnnouncerComponents, init: { replication: number }): Announcer {
  return new BatchAnnouncer(components, init.replication);
}

class BatchAnnouncer implements Announcer {
  readonly #parts: AnnouncerComponents;
  readonly #replication: number;
  readonly #fresh = createKeyQueue(SWARM_LIMITS.announceQueue);
  readonly #gone = createKeyQueue(SWARM_LIMITS.announceQueue);
  readonly #inOrder = oneAtATime();
  readonly #stopping = new AbortController();
  #placed: Placement | undefined;
  #roundMs: number;
  #heldCount = 0;
  #changedMs: number | undefined;
  #firstChangeMs = 0;
  #isMoving = false;
  #delay: NodeJS.Timeout | undefined;
  #acknowledged = 0;
  #isOverfull = false;
  readonly #timer: NodeJS.Timeout;
  #rounds: Promise<void>;
  #stopped: Promise<void> | undefined;

  constructor(parts: AnnouncerComponents, replication: number) {
    this.#parts = parts;
    this.#replication = replication;
    const known = parts.marker.read();
    this.#placed = known?.placement;
    this.#roundMs = known?.roundMs ?? parts.clock.wallTimeMs();
    void this.#writeMarker(undefined, false);
    parts.table.onChange(() => this.#onChange());
    this.#onChange();
    this.#timer = setInterval(() => this.#tick(), SWARM_LIMITS.announceDelayMs);
    this.#timer.unref();
    this.#rounds = this.#goRound().catch(() => undefined);
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  announce(digests: readonly Digest[]): void {
    if (digests.length <= SLICE_KEYS) this.#enqueue(digests);
    else void this.#inOrder(() => this.#enqueueMany(digests));
    this.#soon();
  }

  #enqueue(digests: readonly Digest[]): void {
    for (const digest of digests) {
      if (!this.#fresh.push(chunkKey(digest))) this.#isOverfull = true;
    }
  }

  async #enqueueMany(digests: readonly Digest[]): Promise<void> {
    for (let at = 0; at < digests.length; at += SLICE_KEYS) {
      this.#enqueue(digests.slice(at, at + SLICE_KEYS));
      await nextTurn();
    }
  }

  withdraw(digests: readonly Digest[]): void {
    for (const digest of digests) this.#gone.push(chunkKey(digest));
    this.#soon();
  }

  async settled(): Promise<void> {
    await this.#flush();
  }

  async stop({ graceMs }: { graceMs: number } = { graceMs: 2_000 }): Promise<void> {
    this.#stopped ??= (async () => {
      clearInterval(this.#timer);
      clearTimeout(this.#delay);
      const isFlushed = await Promise.race([
        this.#flush().then(() => true),
        this.#parts.clock.sleep(graceMs).then(() => false),
      ]);
      this.#stopping.abort(new Error('stopping'));
      await this.#rounds;
      const isComplete = isFlushed && !this.#isMoving && !this.#isOverfull && this.#placed !== undefined;
      await this.#writeMarker(this.#placed, isComplete);
    })();
    await this.#stopped;
  }

  async #writeMarker(placement: Placement | undefined, isComplete: boolean): Promise<void> {
    try {
      await this.#parts.marker.write({ placement, roundMs: this.#roundMs, isComplete });
    } catch (error) {
      this.#parts.log.warn('what was announced was not written down', { reason: String(error) });
    }
  }

  #soon(): void {
    if (this.#delay !== undefined || this.#stopped !== undefined) return;
    this.#delay = setTimeout(() => {
      this.#delay = undefined;
      void this.#flush();
    }, SWARM_LIMITS.announceDelayMs);
    this.#delay.unref();
  }

  /** Sends everything that waits; a second call while one is under way sends what came since. */
  #flush(): Promise<void> {
    return this.#inOrder(async () => {
      await this.#drain(this.#gone, 'withdraw', this.#replication + WITHDRAW_BEYOND);
      await this.#drain(this.#fresh, 'announce', this.#replication);
    });
  }

  async #drain(queue: ReturnType<typeof createKeyQueue>, what: 'announce' | 'withdraw', count: number): Promise<void> {
    for (let attempt = 0; attempt < ATTEMPTS && queue.size > 0; attempt += 1) {
      const lost = createKeyQueue(SWARM_LIMITS.announceQueue);
      const outbox = this.#outbox(what, (keys) => pushAll(lost, keys));
      while (queue.size > 0) {
        const keys = queue.take(SLICE_KEYS);
        for (let at = 0; at < keys.byteLength; at += KEY_BYTES) {
          const place = placeOfKey(keys, at);
          for (const { id } of this.#parts.table.closest(place, count)) {
            const full = outbox.add(id, keys, at);
            if (full !== undefined) await full;
          }
        }
        await nextTurn();
      }
      await outbox.flush();
      // The peers that did not answer are not among the closest any more.
      if (what === 'announce') while (lost.size > 0) pushAll(queue, lost.take(SLICE_KEYS));
    }
  }

  #outbox(what: 'announce' | 'withdraw', onLost: (keys: Uint8Array) => void) {
    return createOutbox({
      send: async (to, keys) => {
        await this.#parts.send(to, what, keys);
        this.#acknowledged += keys.byteLength / KEY_BYTES;
      },
      onLost: (_to, keys) => onLost(keys),
    });
  }

  #onChange(): void {
    const nowMs = this.#parts.clock.nowMs();
    if (this.#changedMs === undefined) this.#firstChangeMs = nowMs;
    this.#changedMs = nowMs;
  }

  #tick(): void {
    const nowMs = this.#parts.clock.nowMs();
    if (this.#changedMs === undefined || this.#isMoving) return;
    if (nowMs - this.#changedMs < QUIET_MS && nowMs - this.#firstChangeMs < QUIET_LONGEST_MS) return;
    this.#changedMs = undefined;
    const now = placementOf(this.#parts.table.members);
    if (this.#placed !== undefined && isSamePlacement(this.#placed, now)) return;
    this.#isMoving = true;
    this.#move(now)
      .catch((error) => this.#parts.log.debug('records were not placed anew', { reason: String(error) }))
      .finally(() => {
        this.#isMoving = false;
      });
  }

  /** Everything held goes to those who are now closest and do not have it. */
  async #move(now: Placement): Promise<void> {
    const before = this.#placed;
    const count = await this.#sweep(now, before, () => undefined);
    this.#placed = now;
    this.#heldCount = count;
    this.#parts.log.debug('records placed for a changed swarm', { members: now.members.length, chunks: count });
  }

  /** The round that keeps records alive: everything again within its time, at an even rate. */
  async #goRound(): Promise<void> {
    const { clock, table } = this.#parts;
    const { signal } = this.#stopping;
    for (;;) {
      const waitMs = this.#roundMs + SWARM_LIMITS.reannounceMs - clock.wallTimeMs();
      await clock.sleep(Math.min(Math.max(waitMs, 1_000), SWARM_LIMITS.reannounceMs), { signal });
      this.#roundMs = clock.wallTimeMs();
      // Half the time, so that the round ends well before the next begins even when chunks were added.
      const perSecond = Math.max(ROUND_KEYS_PER_SECOND_MIN, (2_000 * this.#heldCount) / SWARM_LIMITS.reannounceMs);
      this.#isOverfull = false;
      this.#heldCount = await this.#sweep(placementOf(table.members), undefined, (keys) =>
        clock.sleep((keys * 1_000) / perSecond, { signal }),
      );
    }
  }

  async #sweep(
    now: Placement,
    before: Placement | undefined,
    pause: (keys: number) => Promise<void> | undefined,
  ): Promise<number> {
    const outbox = this.#outbox('announce', (keys) => pushAll(this.#fresh, keys));
    let count = 0;
    for await (const digests of this.#parts.held.all()) {
      for (let from = 0; from < digests.length; from += SLICE_KEYS) {
        this.#stopping.signal.throwIfAborted();
        const slice = digests.slice(from, from + SLICE_KEYS);
        for (const digest of slice) {
          const key = chunkKey(digest);
          for (const { id } of newHolders(now, before, placeOfKey(key), this.#replication)) {
            const full = outbox.add(id, key, 0);
            if (full !== undefined) await full;
          }
        }
        count += slice.length;
        await nextTurn();
        const paused = pause(slice.length);
        if (paused !== undefined) {
          await outbox.flush();
          await paused;
        }
      }
    }
    await outbox.flush();
    if (this.#fresh.size > 0) this.#soon();
    return count;
  }
}

function pushAll(queue: ReturnType<typeof createKeyQueue>, keys: Uint8Array): void {
  for (let at = 0; at < keys.byteLength; at += KEY_BYTES) queue.push(keys.subarray(at, at + KEY_BYTES));
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
