import type { Clock } from '../clock.ts';
import { BLOCK_BYTES } from '../core/block-map.ts';
import type { BackgroundPolicy } from '../core/policy/background.ts';
import { backoffMs } from '../core/policy/backoff.ts';
import { type ByteRate, createByteRate } from '../core/policy/byte-rate.ts';
import { type PrefetchPlan, restOrder } from '../core/policy/prefetch-order.ts';
import type { ByteRange } from '../core/policy/readahead.ts';
import { createStartPool, type StartPiece } from '../core/policy/start-pool.ts';
import { withContext } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice } from '../store/blob-device.ts';

/** Fetches what nobody asked for yet: first what a start is likely to read, then the rest of the layers in use. */
export interface Prefetcher {
  /** The device came into use. */
  add(device: BlobDevice): void;
  stats(): PrefetchStats;
  /** Stops what is under way and forgets the rest. Idempotent. */
  stop(): Promise<void>;
}

/** What the background does. */
export interface PrefetchStats {
  /** `paused`: somebody waits for a cold read, or the rate is used up. */
  readonly state: 'idle' | 'fetching' | 'paused';
  /** Layers that are not complete yet. */
  readonly layers: number;
  /** Uncompressed bytes fetched ahead of any reader since the daemon started. */
  readonly bytes: number;
}

interface Components {
  readonly log: Logger;
  readonly clock: Clock;
  /** True while a container waits for a cold read. */
  demandWaiting(): boolean;
  policyOf(device: BlobDevice): BackgroundPolicy;
  /** False once the layer is removed: then its device is closed for good. */
  isOpen(device: BlobDevice): boolean;
}

interface Job {
  readonly device: BlobDevice;
  readonly runs: Iterator<ByteRange>;
  readonly limit: ByteRate;
  failures: number;
  notBeforeMs: number;
  /** The piece whose turn it is, and whether the rate was charged for it. */
  next: ByteRange | undefined;
  isPaid: boolean;
}

/** Pieces of a start under way at a time: network, inflate and disk overlap; bounds memory at 16 MiB. */
const START_PARALLEL = 4;
/** How often a paused background looks whether it may go on, ms: a reader's pause between two reads is shorter. */
const PAUSE_MS = 50;
/** First and longest rest after a failure, ms: a registry that is away is asked again, not besieged. */
const REST = { firstMs: 2_000, longestMs: 120_000 };
/** Seconds' worth of a limited rate that may go at once. */
const BURST_SECONDS = 1;
/** Least of it, bytes: one piece. */
const BURST_BYTES = 4 * 1024 * 1024;

/**
 * `hints`: fetch what a start is likely to read; `node` names this node, so that neighbours go in different orders;
 * `isShared`: there are neighbours, which may start the same image at the same moment.
 */
export function createPrefetcher(
  components: Components,
  init: { hints: boolean; node: string; isShared?: boolean },
): Prefetcher {
  return new LayerPrefetcher(components, init);
}

class LayerPrefetcher implements Prefetcher {
  readonly #components: Components;
  readonly #init: { hints: boolean; node: string; isShared?: boolean };
  readonly #stopping = new AbortController();
  readonly #seen = new WeakSet<BlobDevice>();
  readonly #starts = createStartPool<BlobDevice>();
  readonly #starters = new Set<Promise<void>>();
  #jobs: Job[] = [];
  readonly #limits = new Map<string, ByteRate>();
  #background: Promise<void> | undefined;
  #isPaused = false;
  #bytes = 0;

  constructor(components: Components, init: { hints: boolean; node: string }) {
    this.#components = components;
    this.#init = init;
  }

  add(device: BlobDevice): void {
    if (this.#seen.has(device) || device.complete || this.#stopping.signal.aborted) return;
    this.#seen.add(device);
    const plan = this.#planOf(device);
    if (this.#init.hints) {
      this.#starts.add(device, plan);
      this.#fetchStarts();
    }
    const policy = this.#components.policyOf(device);
    if (!policy.enabled) return;
    const limit = this.#limitOf(policy);
    const runs = restOrder(plan);
    this.#jobs.push({ device, runs, limit, failures: 0, notBeforeMs: 0, next: undefined, isPaid: false });
    this.#background ??= this.#work().finally(() => (this.#background = undefined));
  }

  stats(): PrefetchStats {
    const layers = this.#jobs.length;
    const state = layers === 0 ? 'idle' : this.#isPaused ? 'paused' : 'fetching';
    return { state: this.#starters.size > 0 ? 'fetching' : state, layers, bytes: this.#bytes };
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#starters);
    await this.#background;
  }

  #planOf(device: BlobDevice): PrefetchPlan {
    const { table, startOrder: rows, info, size } = device;
    const recorded = rows.map(({ first, end }) => {
      const offset = table.row(first).deviceOffset;
      return { offset, length: table.blocksOf(end - 1).end * BLOCK_BYTES - offset };
    });
    const seed = `${this.#init.node} ${device.blob}`;
    const isShared = this.#init.isShared === true;
    return { deviceSize: size, hintBytes: info.prefetchBytes ?? 0, recorded, seed, isShared };
  }

  #fetchStarts(): void {
    while (this.#starters.size < START_PARALLEL) {
      const piece = this.#starts.next();
      if (piece === undefined) return;
      const starter = this.#start(piece).finally(() => this.#starters.delete(starter));
      this.#starters.add(starter);
    }
  }

  /** This piece and the next ones, as long as there are any. */
  async #start(first: StartPiece<BlobDevice>): Promise<void> {
    const { signal } = this.#stopping;
    for (
      let piece: StartPiece<BlobDevice> | undefined = first;
      piece !== undefined && !signal.aborted;
      piece = this.#starts.next()
    ) {
      const { layer: device } = piece;
      try {
        await this.#fetch(device, piece.run, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#starts.drop(device);
        const why = withContext(error, {}).describe();
        this.#components.log.info('prefetching stopped', { layer: device.blob, why });
      }
    }
  }

  async #work(): Promise<void> {
    const { clock } = this.#components;
    const { signal } = this.#stopping;
    try {
      while (this.#jobs.length > 0) {
        const now = clock.nowMs();
        const job = this.#jobs.find(({ notBeforeMs }) => notBeforeMs <= now);
        this.#isPaused = job === undefined || this.#starters.size > 0 || this.#components.demandWaiting();
        if (job === undefined || this.#isPaused) await clock.sleep(PAUSE_MS, { signal });
        else await this.#step(job, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }

  /** One piece of one layer; a layer that fails or is over its rate steps back behind the others for a while. */
  async #step(job: Job, signal: AbortSignal): Promise<void> {
    const { clock, isOpen } = this.#components;
    const { device } = job;
    const run = job.next ?? job.runs.next().value;
    if (run === undefined || device.complete || !isOpen(device)) return this.#drop(job);
    job.next = run;
    if (!job.isPaid) {
      const waitMs = job.limit.take(clock.nowMs(), missingBytes(device, run));
      job.isPaid = true;
      job.notBeforeMs = clock.nowMs() + waitMs;
      if (waitMs > 0) return;
    }
    try {
      await this.#fetch(device, run, signal);
      job.failures = 0;
      job.next = undefined;
      job.isPaid = false;
    } catch (error) {
      signal.throwIfAborted();
      this.#failed(job, error);
    }
  }

  #failed(job: Job, error: unknown): void {
    const { clock, log, isOpen } = this.#components;
    job.failures += 1;
    const restMs = backoffMs(job.failures, REST);
    job.notBeforeMs = clock.nowMs() + restMs;
    if (!isOpen(job.device)) return;
    const why = withContext(error, {}).describe();
    log.info('fetching in the background rests', { layer: job.device.blob, restMs, why });
  }

  /** Layers under one rule share its rate. */
  #limitOf({ group, bytesPerSecond }: BackgroundPolicy): ByteRate {
    const known = this.#limits.get(group);
    if (known !== undefined) return known;
    const burstBytes = Math.max(BURST_BYTES, BURST_SECONDS * bytesPerSecond);
    const limit = createByteRate({ bytesPerSecond, burstBytes });
    this.#limits.set(group, limit);
    return limit;
  }

  #drop(job: Job): void {
    this.#jobs = this.#jobs.filter((each) => each !== job);
  }

  async #fetch(device: BlobDevice, { offset, length }: ByteRange, signal: AbortSignal): Promise<void> {
    const missing = missingBytes(device, { offset, length });
    if (missing === 0) return;
    await device.fill(offset, length, { signal, urgency: 'prefetch' });
    this.#bytes += missing;
  }
}

/** Bytes of the chunks of this range that are not here. */
function missingBytes(device: BlobDevice, { offset, length }: ByteRange): number {
  const { first, end } = device.table.covering(offset, length);
  let bytes = 0;
  for (let row = first; row < end; row += 1)
    if (!device.hasChunk(row)) bytes += device.table.columns.length[row] as number;
  return bytes;
}
