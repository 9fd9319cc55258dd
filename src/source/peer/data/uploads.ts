import type { ServerResponse } from 'node:http';
import type { Clock } from '../../../clock.ts';
import type { ChunkRef } from '../../../core/chunk.ts';
import type { Digest } from '../../../core/digest.ts';
import { orAborted } from '../../../core/or-aborted.ts';
import { createUploadQueue, type Upload, type UploadQueue } from '../../../core/policy/upload-queue.ts';
import type { LentChunk, SharedChunks } from '../../../store/shared-chunks.ts';
import type { Neighbour } from '../directory.ts';
import type { ChunkRequest } from './chunk-request.ts';
import { MAX_SENT_INDEX_BYTES, type SharedIndexes } from './index-request.ts';
import { DATA_LIMITS } from './limits.ts';

/** What was given to neighbours. */
export interface UploadStats {
  readonly requests: number;
  /** Chunks sent whole, and bytes of all answers that ended. */
  readonly chunks: number;
  readonly bytes: number;
  /** Of these bytes, what went to another zone. */
  readonly crossZoneBytes: number;
  readonly missing: number;
  /** Requests refused because too much waited. */
  readonly busy: number;
  /** Answers cut because the neighbour left or was too slow. */
  readonly cut: number;
  readonly active: number;
  readonly queued: number;
  /** Requests kept open for a chunk that this node is getting. */
  readonly waiting: number;
}

/** Answers requests for chunks, each in its turn. */
export interface Uploads {
  /** Resolves when the answer is over. */
  serve(neighbour: Neighbour, request: ChunkRequest, response: ServerResponse): Promise<void>;
  /** The same for the index of a layer. */
  serveIndex(neighbour: Neighbour, layer: Digest, response: ServerResponse): Promise<void>;
  stats(): UploadStats;
  /** Answers nothing any more. */
  close(): void;
}

interface Job extends Upload {
  readonly start: () => void;
}

/** What is to be sent, read when its turn has come; it may be gone by then. */
interface Answer {
  readonly length: number;
  readonly read: () => Promise<LentChunk | undefined>;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
}

/** `bytesPerSecond` 0: no limit; `ownZone`: empty when this node has no label. */
export function createUploads(
  components: { chunks: SharedChunks; indexes?: SharedIndexes; clock: Clock },
  init: { bytesPerSecond?: number; slots?: number; ownZone: string },
): Uploads {
  return new QueuedUploads(components, init);
}

class QueuedUploads implements Uploads {
  readonly #chunks: SharedChunks;
  readonly #indexes: SharedIndexes | undefined;
  readonly #clock: Clock;
  readonly #ownZone: string;
  readonly #queue: UploadQueue<Job>;
  readonly #closed = new AbortController();
  /** Requests kept open, by neighbour. */
  readonly #waits = new Map<string, Set<ServerResponse>>();
  #waiting = 0;
  #timer: NodeJS.Timeout | undefined;
  readonly #stillWaiting: NodeJS.Timeout;
  readonly #counts = { requests: 0, chunks: 0, bytes: 0, crossZoneBytes: 0, missing: 0, busy: 0, cut: 0 };

  constructor(
    { chunks, indexes, clock }: { chunks: SharedChunks; indexes?: SharedIndexes; clock: Clock },
    init: { bytesPerSecond?: number; slots?: number; ownZone: string },
  ) {
    this.#chunks = chunks;
    this.#indexes = indexes;
    this.#clock = clock;
    this.#ownZone = init.ownZone;
    this.#queue = createUploadQueue({ bytesPerSecond: init.bytesPerSecond ?? 0, ...pick(init.slots) });
    this.#stillWaiting = setInterval(() => this.#tellWaiting(), DATA_LIMITS.stillWaitingMs);
    this.#stillWaiting.unref();
  }

  async serve(neighbour: Neighbour, request: ChunkRequest, response: ServerResponse): Promise<void> {
    const signal = this.#begin(response);
    const ref =
      (await this.#chunks.locate(request.digest)) ?? (await this.#arrival(neighbour, request, response, signal));
    if (signal.aborted) return;
    if (ref === undefined) {
      this.#counts.missing += 1;
      end(response, 404);
      return;
    }
    const read = () => this.#chunks.read(ref, { signal });
    await this.#inTurn(neighbour, request, { length: ref.length, read, response, signal });
  }

  async serveIndex(neighbour: Neighbour, layer: Digest, response: ServerResponse): Promise<void> {
    const signal = this.#begin(response);
    const length = await this.#indexes?.sizeOf(layer);
    if (signal.aborted) return;
    if (length === undefined || length > MAX_SENT_INDEX_BYTES) {
      this.#counts.missing += 1;
      end(response, 404);
      return;
    }
    const read = async () => {
      const bytes = await this.#indexes?.read(layer);
      return bytes === undefined ? undefined : { bytes, release() {} };
    };
    await this.#inTurn(neighbour, { urgency: 'demand', waitMs: 0 }, { length, read, response, signal });
  }

  /** Counts a request; the signal fires when nobody waits for its answer any more. */
  #begin(response: ServerResponse): AbortSignal {
    this.#counts.requests += 1;
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    return AbortSignal.any([gone.signal, this.#closed.signal]);
  }

  stats(): UploadStats {
    const { active, queued } = this.#queue;
    return { ...this.#counts, active, queued, waiting: this.#waiting };
  }

  close(): void {
    this.#closed.abort();
    clearInterval(this.#stillWaiting);
    clearTimeout(this.#timer);
  }

  /** The chunk once it has come, if this node is getting it. */
  async #arrival(
    { id }: Neighbour,
    { digest, waitMs, urgency }: ChunkRequest,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<ChunkRef | undefined> {
    if (waitMs === 0) return undefined;
    const theirs = this.#waits.get(id) ?? new Set();
    if (theirs.size >= DATA_LIMITS.waitsPerPeer || this.#waiting >= DATA_LIMITS.waits) return undefined;
    const coming = this.#chunks.underWay(digest, urgency);
    if (coming === undefined) return undefined;
    this.#waits.set(id, theirs.add(response));
    this.#waiting += 1;
    try {
      await orAborted(coming, AbortSignal.any([signal, AbortSignal.timeout(waitMs)]));
      return await this.#chunks.locate(digest);
    } catch {
      // It failed, or took too long: the neighbour asks elsewhere.
      return undefined;
    } finally {
      theirs.delete(response);
      this.#waiting -= 1;
      if (theirs.size === 0) this.#waits.delete(id);
    }
  }

  #inTurn(
    { id, zone }: Neighbour,
    { urgency, waitMs }: Pick<ChunkRequest, 'urgency' | 'waitMs'>,
    answer: Answer,
  ): Promise<void> {
    const { length, response, signal } = answer;
    return new Promise((resolve, reject) => {
      const start = (): void => {
        signal.removeEventListener('abort', onAbort);
        this.#send(zone, answer)
          .finally(() => {
            this.#queue.finished(job);
            this.#pump();
          })
          .then(resolve, reject);
      };
      const onAbort = (): void => {
        this.#queue.remove(job);
        resolve();
      };
      const job: Job = { peer: id, bytes: length, urgency, directed: waitMs > 0, start };
      const retryAfterMs = this.#queue.add(job, this.#clock.nowMs());
      if (retryAfterMs !== undefined) {
        this.#counts.busy += 1;
        end(response, 503, { 'retry-after': (retryAfterMs / 1_000).toFixed(3) });
        resolve();
        return;
      }
      signal.addEventListener('abort', onAbort, { once: true });
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#closed.signal.aborted) return;
    for (let job = this.#queue.next(this.#clock.nowMs()); job !== undefined; ) {
      job.start();
      job = this.#queue.next(this.#clock.nowMs());
    }
    const waitMs = this.#queue.waitMs(this.#clock.nowMs());
    if (waitMs === undefined || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pump();
    }, Math.ceil(waitMs));
  }

  async #send(zone: string, { read, response, signal }: Answer): Promise<void> {
    if (signal.aborted) return;
    const chunk = await read();
    if (signal.aborted) {
      chunk?.release();
      return;
    }
    if (chunk === undefined) {
      this.#counts.missing += 1;
      end(response, 404);
      return;
    }
    const { bytes } = chunk;
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes.byteLength });
    const sent = await sendAll(response, bytes);
    if (!sent) {
      // Its bytes are left to the collector: the connection may still be looking at them.
      this.#counts.cut += 1;
      return;
    }
    const sentBytes = bytes.byteLength;
    chunk.release();
    this.#counts.chunks += 1;
    this.#counts.bytes += sentBytes;
    if (zone !== this.#ownZone) this.#counts.crossZoneBytes += sentBytes;
  }

  /** Tells who waits that the chunk is still coming, so that silence can mean trouble. */
  #tellWaiting(): void {
    for (const waits of this.#waits.values()) for (const response of waits) response.writeProcessing();
  }
}

/** True when all of it went out in time. */
function sendAll(response: ServerResponse, bytes: Uint8Array): Promise<boolean> {
  return new Promise((resolve) => {
    const { progressMs, minBytesPerMs } = DATA_LIMITS;
    const timer = setTimeout(() => response.destroy(), progressMs + bytes.byteLength / minBytesPerMs);
    const over = (): void => {
      clearTimeout(timer);
      resolve(response.writableFinished);
    };
    response.once('close', over);
    response.once('finish', over);
    sendSlice(response, bytes, 0);
  });
}

/** Sends the rest from `offset`, one slice in each turn of the event loop and no faster than the connection takes them. */
function sendSlice(response: ServerResponse, bytes: Uint8Array, offset: number): void {
  if (response.destroyed) return;
  const end = offset + DATA_LIMITS.sentAtOnceBytes;
  if (end >= bytes.byteLength) {
    response.end(bytes.subarray(offset));
    return;
  }
  const next = (): unknown => setImmediate(() => sendSlice(response, bytes, end));
  if (response.write(bytes.subarray(offset, end))) next();
  else response.once('drain', next);
}

function end(response: ServerResponse, status: number, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-length': '0', ...headers }).end();
}

function pick(slots: number | undefined): { slots?: number } {
  return slots === undefined ? {} : { slots };
}
