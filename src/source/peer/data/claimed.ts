import type { Clock } from '../../../clock.ts';
import type { Chunk, ChunkRef } from '../../../core/chunk.ts';
import type { ChunkTable } from '../../../core/chunk-table.ts';
import type { Digest } from '../../../core/digest.ts';
import { orAborted } from '../../../core/or-aborted.ts';
import { claimUnit } from '../../../core/policy/claim-units.ts';
import { CLAIM_WAIT_LIMITS } from '../../../core/policy/claim-wait-limits.ts';
import type { Hedging } from '../../../core/policy/hedging.ts';
import { type ChunkStore, type GetOptions, type Urgency, within } from '../../../store/chunk-store.ts';
import type { ClaimAnswer, Neighbour, PeerDirectory } from '../directory.ts';
import { type ClaimBatches, type Claimed, createClaimBatches } from './claim-batches.ts';
import { type Attempt, firstAnswer } from './first-answer.ts';

/** What claims need to know and to do. */
export interface ClaimedComponents {
  /** Mirrors and origin: where a chunk comes from when nobody in the swarm has it. */
  readonly outside: ChunkStore;
  readonly directory: PeerDirectory;
  readonly table: (blob: Digest) => ChunkTable | undefined;
  /** A store that asks these neighbours, which may keep the request for `waitMs`. */
  readonly ask: (holders: readonly Neighbour[], init: { waitMs: number }) => ChunkStore;
  /**
   * Starts to fetch rows [first, end) of the blob at low priority: they share an extent with a row that this node was
   * granted, and other nodes are told to get them here.
   */
  readonly complete?: (blob: Digest, first: number, end: number) => void;
  /** Neighbours that are known to hold the chunk by now: they were too busy, or known too late, when they were asked. */
  readonly known?: (ref: ChunkRef) => readonly Neighbour[];
  readonly hedging: Hedging;
  readonly clock: Clock;
  /** Time that a cold read may take in all, ms. */
  readonly deadlineMs?: number;
}

/** What became of reads that nobody in the swarm could serve at once. */
export interface ClaimStats {
  /** Fetched from outside by our claim. */
  readonly granted: number;
  /** Served by the node whose claim it was. */
  readonly waited: number;
  /** Fetched from outside although another node was fetching it: it took too long. */
  readonly gaveUp: number;
  readonly hedged: number;
  /** Claims made again because no holder yielded the chunk. */
  readonly again: number;
}

/** The claimed way outside. */
export interface ClaimedStore extends ChunkStore {
  stats(): ClaimStats;
}

/**
 * The way outside, so that N nodes that read the same cold chunk fetch it once (design §7): the chunk is claimed first.
 * Granted: it is fetched, and whoever asks meanwhile gets it from here. Else the nodes that have it or are getting it are
 * asked, and when that takes too long the read goes outside anyway. Throws what `outside` throws, and nothing else.
 */
export function claimed(components: ClaimedComponents): ClaimedStore {
  return new ClaimingStore(components);
}

/** An extent that is being fetched, and for how many reads. */
interface Unit extends Claimed {
  readonly first: number;
  readonly end: number;
  answer: Promise<ClaimAnswer>;
  readers: number;
  /** The chunk came, from wherever: others may ask for it here. */
  held: boolean;
  completing: boolean;
  /** When the lease is to be claimed again; undefined while there is none. */
  renewAtMs: number | undefined;
}

/** How often leases are looked at, ms. */
const RENEW_CHECK_MS = 1_000;

class ClaimingStore implements ClaimedStore {
  readonly #components: ClaimedComponents;
  readonly #batches: ClaimBatches;
  readonly #waitMs: number;
  readonly #units = new Map<string, Unit>();
  #renewing: NodeJS.Timeout | undefined;
  readonly #stats = { granted: 0, waited: 0, gaveUp: 0, hedged: 0, again: 0 };

  constructor(components: ClaimedComponents) {
    this.#components = components;
    this.#batches = createClaimBatches(components);
    const { waitMs, waitPerDeadline } = CLAIM_WAIT_LIMITS;
    this.#waitMs = Math.min(waitMs, waitPerDeadline * (components.deadlineMs ?? Number.POSITIVE_INFINITY));
  }

  has(ref: ChunkRef): boolean | Promise<boolean> {
    return this.#components.outside.has(ref);
  }

  async get(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    options.signal.throwIfAborted();
    const { directory, table } = this.#components;
    const rows = directory.peers().length === 0 ? undefined : table(ref.blob);
    // Without neighbours there is nobody to coordinate with; without the row there is nothing to name.
    if (rows === undefined || !(ref.index < rows.count) || rows.row(ref.index).digest !== ref.digest) {
      return await this.#outside(ref, options);
    }
    const unit = this.#enter(ref, rows);
    try {
      const chunk = await this.#claimedRead(unit, ref, options);
      unit.held = true;
      return chunk;
    } finally {
      this.#leave(unit);
    }
  }

  stats(): ClaimStats {
    return { ...this.#stats };
  }

  async close(): Promise<void> {
    clearInterval(this.#renewing);
    this.#batches.close();
    await this.#components.outside.close();
  }

  async #claimedRead(unit: Unit, ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    const { clock } = this.#components;
    const { signal } = options;
    const startedMs = clock.nowMs();
    const { againMs, prefetchWaitMs } = CLAIM_WAIT_LIMITS;
    const mostMs = (): number => (options.urgency === 'prefetch' ? prefetchWaitMs : this.#waitMs);
    const leftMs = (): number => startedMs + mostMs() - clock.nowMs();
    for (let round = 0; ; round += 1) {
      const answer = await orAborted(unit.answer, signal);
      if (answer.kind === 'granted') return await this.#fetch(unit, ref, { options, startedMs });
      const forMs = Math.min(this.#waitMs, leftMs());
      const chunk =
        forMs <= 0 ? undefined : await this.#fromHolders(unit, ref, answer.holders, { options, startedMs, forMs });
      if (chunk !== undefined) {
        this.#stats.waited += 1;
        return chunk;
      }
      const pauseMs = againMs[Math.min(round, againMs.length - 1)] as number;
      if (pauseMs >= leftMs()) {
        this.#stats.gaveUp += 1;
        return await this.#outside(ref, options);
      }
      this.#stats.again += 1;
      // They may have failed, or be a moment behind: ask who has it now.
      await clock.sleep(pauseMs, { signal });
      this.#claimAgain(unit, answer);
    }
  }

  async #fetch(
    unit: Unit,
    ref: ChunkRef,
    { options, startedMs }: { options: GetOptions; startedMs: number },
  ): Promise<Chunk> {
    const { complete, known } = this.#components;
    const holders = known?.(ref) ?? [];
    if (holders.length > 0) {
      // The coordinator does not know them, and sends one node at a time: they can bear that.
      const forMs = CLAIM_WAIT_LIMITS.knownMs;
      const chunk = await this.#fromHolders(unit, ref, holders, { options, startedMs, forMs });
      if (chunk !== undefined) return chunk;
    }
    this.#stats.granted += 1;
    if (!unit.completing && unit.end - unit.first > 1) {
      unit.completing = true;
      complete?.(unit.blob, unit.first, Math.min(unit.end, unit.first + CLAIM_WAIT_LIMITS.maxSiblings));
    }
    return await this.#outside(ref, options);
  }

  /** The chunk from nodes that have it or are getting it, or from outside when they are slow; undefined when they failed. */
  async #fromHolders(
    unit: Unit,
    ref: ChunkRef,
    holders: readonly Neighbour[],
    { options, startedMs, forMs }: { options: GetOptions; startedMs: number; forMs: number },
  ): Promise<Chunk | undefined> {
    const { ask, hedging, clock } = this.#components;
    const asked = new Set<Urgency>();
    let hedges = 0;
    const next = async (slow: boolean): Promise<Attempt<Chunk> | undefined> => {
      const urgency = options.urgency ?? 'demand';
      // Once, and once more when somebody began to wait: the holder then hurries.
      if (asked.size === 0 || (slow && urgency === 'demand' && !asked.has('demand'))) {
        asked.add(urgency);
        const store = ask(holders, { waitMs: forMs });
        return (signal) => store.get(ref, within(options, signal));
      }
      if (!slow || hedges > 0 || urgency === 'prefetch') return undefined;
      if (!hedging.takeOutside(ref.length, clock.nowMs() - startedMs, unit.end - unit.first)) return undefined;
      hedges += 1;
      this.#stats.hedged += 1;
      return (signal) => this.#outside(ref, within(options, signal));
    };
    const hedgeAfterMs = (): number =>
      asked.has('demand') ? hedging.holderDelayMs(ref.length) : CLAIM_WAIT_LIMITS.lookAgainMs;
    // A node that waits for another that is gone must not wait for ever, whatever it is told meanwhile.
    return await firstAnswer({ signal: options.signal, withinMs: forMs, next, hedgeAfterMs });
  }

  async #outside(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    const { outside, clock, hedging } = this.#components;
    const startedMs = clock.nowMs();
    const chunk = await outside.get(ref, options);
    // What nobody waited for may have stood in a queue behind what somebody did.
    if (options.urgency !== 'prefetch') hedging.note('outside', ref.length, clock.nowMs() - startedMs);
    return chunk;
  }

  #enter(ref: ChunkRef, rows: ChunkTable): Unit {
    const { first, end, region } = claimUnit(rows, ref.index);
    const key = `${first}/${ref.blob}`;
    let unit = this.#units.get(key);
    if (unit === undefined) {
      const claim: Claimed = {
        blob: ref.blob,
        region,
        digest: first === ref.index ? ref.digest : rows.row(first).digest,
      };
      const state = { readers: 0, held: false, completing: false, renewAtMs: undefined };
      unit = { ...claim, first, end, ...state, answer: this.#batches.claim(claim) };
      this.#noteLease(unit);
      this.#units.set(key, unit);
    }
    unit.readers += 1;
    return unit;
  }

  #leave(unit: Unit): void {
    unit.readers -= 1;
    if (unit.readers > 0) return;
    this.#units.delete(`${unit.first}/${unit.blob}`);
    this.#batches.settle(unit, unit.held ? 'held' : 'failed');
  }

  /** Once for all reads that the same answer did not help. */
  #claimAgain(unit: Unit, former: ClaimAnswer): void {
    const known = unit.answer;
    unit.answer = known.then((answer) => (answer === former ? this.#batches.claim(unit) : answer));
    this.#noteLease(unit);
  }

  #noteLease(unit: Unit): void {
    const { clock } = this.#components;
    unit.answer.then(
      (answer) => {
        const leaseMs = answer.kind === 'granted' ? answer.leaseMs : Number.POSITIVE_INFINITY;
        unit.renewAtMs = Number.isFinite(leaseMs)
          ? clock.nowMs() + CLAIM_WAIT_LIMITS.renewFraction * leaseMs
          : undefined;
      },
      () => {},
    );
    this.#renewing ??= setInterval(() => this.#renew(), RENEW_CHECK_MS).unref();
  }

  /** A slow fetch keeps its lease, or others would start the same. */
  #renew(): void {
    const nowMs = this.#components.clock.nowMs();
    for (const unit of this.#units.values()) {
      if (unit.renewAtMs === undefined || unit.renewAtMs > nowMs) continue;
      unit.renewAtMs = undefined;
      void this.#batches.claim(unit).then(
        (answer) => {
          if (answer.kind === 'granted') unit.renewAtMs = nowMs + CLAIM_WAIT_LIMITS.renewFraction * answer.leaseMs;
        },
        () => {},
      );
    }
  }
}
