import type { ByteBudget, Claim } from '../../core/byte-budget.ts';
import type { Extent } from '../../core/chunk-table.ts';
import { ShoalError } from '../../errors.ts';
import type { decodeExtent, SpanStart } from '../../image/codec.ts';
import type { RangedBlob } from '../../image/layer-reader.ts';
import type { GetOptions } from '../../store/chunk-store.ts';
import { type Flight, startFlight } from '../../store/flight.ts';
import { verifySpan } from '../../store/verify-chunk.ts';
import { type ComingExtent, comingExtent, type DecodedExtent } from './decoded-extent.ts';
import { bytesHeld, Delivery, endOf, type Job, type Part, spanOf } from './delivery.ts';

/** Decoded extents of one blob, each fetched by one caller for all. */
export interface ExtentFetcher {
  /**
   * The first `extent.decodedLength` decoded bytes, held for the caller, who releases them; unverified unless the extent
   * has a digest. Throws what the blob or the decoder throws.
   */
  get(row: number, extent: Extent, options: GetOptions): Promise<DecodedExtent>;
  /** Aborts everything under way. */
  close(): void;
}

/** Tuning, see the defaults. */
export interface ExtentFetcherInit {
  readonly maxRequests?: number;
  readonly maxGapBytes?: number;
  readonly demandRequestBytes?: number;
  readonly prefetchRequestBytes?: number;
}

/** Ranged requests under way per blob: hides the round trip, and is what a registry takes from one client. */
const MAX_REQUESTS = 6;
/** Bytes between two extents that are fetched and thrown away rather than asked for apart: < a round trip's worth. */
const MAX_GAP_BYTES = 64 * 1024;
/** Longest request a reader waits for, compressed bytes (an extent that is longer goes alone). */
const DEMAND_REQUEST_BYTES = 4 * 1024 * 1024;
/** Longest request nobody waits for, compressed bytes. */
const PREFETCH_REQUEST_BYTES = 16 * 1024 * 1024;
/** Below this a request is not split just to have several under way, compressed bytes. */
const SPLIT_BYTES = 1024 * 1024;

/** What a fetcher works with. */
export interface ExtentFetcherComponents {
  readonly blob: RangedBlob;
  readonly decode: typeof decodeExtent;
  /** Memory for what is being fetched and decoded, shared with the fetchers of other blobs. */
  readonly budget: ByteBudget;
  /** The window of this row, for `deflate` extents. */
  window?(row: number): Promise<Uint8Array>;
  /** Told of compressed bytes as they arrive. */
  onFetched(bytes: number): void;
}

/**
 * Turns reads of single extents into few ranged requests: what is asked for in one turn, or while all requests are
 * taken or the budget is used up, is sorted by place and neighbours travel together. Demand goes before prefetch, and
 * takes waiting prefetch neighbours along.
 */
export function createExtentFetcher(components: ExtentFetcherComponents, init: ExtentFetcherInit = {}): ExtentFetcher {
  return new BatchingFetcher(components, init);
}

class BatchingFetcher implements ExtentFetcher, Claim {
  readonly #components: ExtentFetcherComponents;
  readonly #limits: Required<ExtentFetcherInit>;
  readonly #flights = new Map<number, { readonly flight: Flight<DecodedExtent>; readonly coming: ComingExtent }>();
  #waiting: Job[] = [];
  #running = 0;
  #scheduled = false;

  constructor(components: ExtentFetcherComponents, init: ExtentFetcherInit) {
    this.#components = components;
    this.#limits = {
      maxRequests: init.maxRequests ?? MAX_REQUESTS,
      maxGapBytes: init.maxGapBytes ?? MAX_GAP_BYTES,
      demandRequestBytes: init.demandRequestBytes ?? DEMAND_REQUEST_BYTES,
      prefetchRequestBytes: init.prefetchRequestBytes ?? PREFETCH_REQUEST_BYTES,
    };
  }

  async get(row: number, extent: Extent, options: GetOptions): Promise<DecodedExtent> {
    options.signal.throwIfAborted();
    let entry = this.#flights.get(row);
    if (entry?.coming.hold() !== true) {
      entry = this.#start(row, extent);
      entry.coming.hold();
    }
    const { coming, flight } = entry;
    try {
      return await flight.join(options);
    } catch (error) {
      coming.release();
      throw error;
    }
  }

  close(): void {
    const reason = new ShoalError('UNAVAILABLE', 'the origin store is closed');
    for (const { flight } of [...this.#flights.values()]) flight.cancel(reason);
  }

  /** Looked at by the budget. */
  get urgent(): boolean {
    return this.#waiting.some(({ options }) => options.urgency !== 'prefetch' && !options.signal.aborted);
  }

  /** Called by the budget: the next request, if it needs at most `room` bytes of memory. */
  start(room: number): number | undefined {
    this.#waiting = this.#waiting.filter(({ options }) => !options.signal.aborted);
    if (this.#running >= this.#limits.maxRequests || this.#waiting.length === 0) return 0;
    const [first, end] = this.#nextBatch();
    const bytes = bytesHeld(this.#waiting.slice(first, end));
    if (bytes > room) return undefined;
    this.#begin(this.#waiting.splice(first, end - first), bytes);
    return bytes;
  }

  #start(row: number, extent: Extent): { readonly flight: Flight<DecodedExtent>; readonly coming: ComingExtent } {
    const coming = comingExtent();
    const flight = startFlight(
      // Undecoded bytes are a view of what the request brought.
      async (shared) => coming.arrived(await this.#decoded(extent, shared), extent.codec !== 'none'),
      () => {
        if (this.#flights.get(row) === entry) this.#flights.delete(row);
      },
    );
    const entry = { flight, coming };
    this.#flights.set(row, entry);
    return entry;
  }

  async #decoded(extent: Extent, options: GetOptions): Promise<Uint8Array> {
    const { bytes, decode, release } = await new Promise<Part>((resolve, reject) => {
      const job: Job = { extent, options, resolve, reject };
      const onAbort = (): void => {
        // The request goes on for the others in it; this one stops waiting.
        reject(options.signal.reason);
        if (this.#waiting.length > 0) this.#schedule();
      };
      options.signal.addEventListener('abort', onAbort, { once: true });
      this.#waiting.push(job);
      this.#schedule();
    });
    const { signal } = options;
    let unused = false;
    try {
      const decoded = await decode(async () => {
        if (extent.digest !== undefined) await verifySpan(bytes, extent.digest);
        const start = await this.#spanStart(extent);
        return await this.#components.decode(extent.codec, bytes, extent.decodedLength, { signal, start });
      });
      // Not when it failed: a decoder that was stopped may still be reading.
      unused = extent.codec !== 'none';
      return decoded;
    } finally {
      release(unused);
    }
  }

  async #spanStart({ checkpoint }: Extent): Promise<SpanStart | undefined> {
    if (checkpoint === undefined) return undefined;
    const { bits, window } = checkpoint;
    return { bits, window: window === undefined ? undefined : await this.#components.window?.(window) };
  }

  /** After the current turn, so that what it asks for is seen together. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    if (this.#running < this.#limits.maxRequests && this.#waiting.length > 0) this.#components.budget.ask(this);
  }

  #begin(batch: readonly Job[], bytes: number): void {
    this.#running += 1;
    const delivery = new Delivery(batch, () => this.#components.budget.giveBack(bytes));
    void this.#request(batch, delivery).finally(() => {
      this.#running -= 1;
      if (this.#waiting.length > 0) this.#schedule();
    });
    // For the next one, behind the other blobs that wait.
    queueMicrotask(() => this.#dispatch());
  }

  /** The oldest demand (else the oldest prefetch) with its neighbours on both sides: from, to in `#waiting`, now in blob order. */
  #nextBatch(): [number, number] {
    const seed = this.#waiting.find(({ options }) => options.urgency !== 'prefetch') ?? (this.#waiting[0] as Job);
    const sorted = this.#waiting.sort((a, b) => a.extent.offset - b.extent.offset);
    let first = sorted.indexOf(seed);
    let end = first + 1;
    const most = this.#requestBytes(seed);
    const span = (from: number, to: number): number =>
      endOf(sorted[to - 1] as Job) - (sorted[from] as Job).extent.offset;
    const near = (left: number): boolean =>
      (sorted[left + 1] as Job).extent.offset - endOf(sorted[left] as Job) <= this.#limits.maxGapBytes;
    // Forward first: readers mostly go that way.
    while (end < sorted.length && near(end - 1) && span(first, end + 1) <= most) end += 1;
    while (first > 0 && near(first - 1) && span(first - 1, end) <= most) first -= 1;
    return [first, end];
  }

  /** The limit of the seed's urgency, or less when that spreads the work over the requests still free. */
  #requestBytes(seed: Job): number {
    const { maxRequests, demandRequestBytes, prefetchRequestBytes } = this.#limits;
    const limit = seed.options.urgency === 'prefetch' ? prefetchRequestBytes : demandRequestBytes;
    let waitingBytes = 0;
    for (const { extent } of this.#waiting) waitingBytes += extent.length;
    const share = waitingBytes / (maxRequests - this.#running);
    return Math.min(limit, Math.max(SPLIT_BYTES, share));
  }

  async #request(batch: readonly Job[], delivery: Delivery): Promise<void> {
    const controller = new AbortController();
    let wanted = batch.length;
    for (const { options } of batch) {
      options.signal.addEventListener(
        'abort',
        () => {
          wanted -= 1;
          if (wanted === 0) controller.abort(options.signal.reason);
        },
        { once: true },
      );
    }
    try {
      const bytes = await this.#components.blob.read((batch[0] as Job).extent.offset, spanOf(batch), {
        signal: controller.signal,
        // Asked for anew while the request waits for its turn: a reader may come for what was prefetched.
        get urgency() {
          return batch.some(({ options }) => options.urgency !== 'prefetch') ? 'demand' : 'prefetch';
        },
        onBytes: (arrived, filled) => delivery.upTo(arrived, filled),
      });
      this.#components.onFetched(bytes.byteLength);
      delivery.complete(bytes);
    } catch (error) {
      delivery.fail(error);
    }
  }
}
