import { Worker } from 'node:worker_threads';
import { freeBytes } from '../../core/byte-pool.ts';
import { ChunkTable } from '../../core/chunk-table.ts';
import { type Digest, parseDigest } from '../../core/digest.ts';
import { atMost } from '../../core/turns.ts';
import { ShoalError } from '../../errors.ts';
import type { RangedBlob } from '../layer-reader.ts';
import type { Packing } from './layer-pass.ts';
import type { PassCommand, PassNotice } from './pass-protocol.ts';

/** A layer after a pass over it: its bytes were those of its digest. */
export interface PassedLayer {
  readonly packing: Packing;
  /** As `encodeTree` makes it. */
  readonly tree: Uint8Array;
  readonly chunks: ChunkTable;
  /** As `encodeWindows` makes them. */
  readonly windows: Uint8Array | undefined;
  readonly diffId: Digest;
  readonly impliesDirs: boolean;
}

/** Threads that read layers from end to end. */
export interface PassThreads {
  /**
   * Streams the blob through a pass; the device's bytes go to `fd`, which the caller keeps open until this settles.
   * `onBytes` is told of compressed bytes as they are read. Throws INVALID_LAYER (also: wrong digest),
   * UNSUPPORTED_LAYER, TOO_LARGE, STORE_IO, what reading throws, or the signal's reason.
   */
  pass(
    blob: RangedBlob,
    target: { readonly fd: number; readonly maxEntries?: number },
    options: { readonly signal: AbortSignal; readonly onBytes?: (bytes: number) => void },
  ): Promise<PassedLayer>;
  /** Ends the threads; passes under way fail. Idempotent. */
  close(): Promise<void>;
}

/** Passes at a time: each takes a core, 60 MiB and 1 MiB per thousand files, and the link to the registry is the bottleneck. */
const PASSES_MAX = 2;
/** Length of a request, bytes. */
const REQUEST_BYTES = 4 * 1024 * 1024;
/** Requests under way or read and not decoded yet: hides the round trip, and bounds memory at 16 MiB. */
const REQUESTS_AHEAD = 4;
/** Shorter reads are copied: they may be part of something that others hold. */
const COPY_BYTES = 1024 * 1024;
/** An idle thread ends, ms: layers of one pull come close together. */
const IDLE_MS = 5_000;
/**
 * Heap of a thread: the largest tree (a million entries) takes 1 GB. What is new does not live long, but for the tree: with
 * room of its own choice V8 takes 50 MiB for it.
 */
const THREAD_LIMITS = { maxOldGenerationSizeMb: 2048, maxYoungGenerationSizeMb: 6 };

export function createPassThreads(): PassThreads {
  return new Threads();
}

class Threads implements PassThreads {
  readonly #inTurn = atMost(PASSES_MAX);
  readonly #idle: PassThread[] = [];
  readonly #all = new Set<PassThread>();
  #closed = false;

  pass(
    blob: RangedBlob,
    target: { fd: number; maxEntries?: number },
    options: { signal: AbortSignal; onBytes?: (bytes: number) => void },
  ): Promise<PassedLayer> {
    return this.#inTurn(async () => {
      options.signal.throwIfAborted();
      if (this.#closed) throw new ShoalError('UNAVAILABLE', 'layers are not read any more');
      const thread = this.#idle.pop() ?? this.#start();
      try {
        const passed = await thread.run(blob, target, options);
        this.#rest(thread);
        return passed;
      } catch (error) {
        // Whatever state it is in: nothing of it must get into the next layer, nor write to a descriptor used anew.
        this.#all.delete(thread);
        await thread.terminate();
        throw error;
      }
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#all].map((thread) => thread.terminate()));
    this.#all.clear();
  }

  #start(): PassThread {
    const thread = new PassThread();
    this.#all.add(thread);
    return thread;
  }

  #rest(thread: PassThread): void {
    this.#idle.push(thread);
    thread.restUntil(IDLE_MS, () => {
      const at = this.#idle.indexOf(thread);
      if (at < 0) return;
      this.#idle.splice(at, 1);
      this.#all.delete(thread);
      void thread.terminate();
    });
  }
}

/** One thread and the pass it works on. */
class PassThread {
  readonly #worker: Worker;
  #onNotice: ((notice: PassNotice) => void) | undefined;
  #onFailure: ((error: unknown) => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor() {
    const file = import.meta.url.endsWith('.ts') ? './pass-worker.ts' : './pass-worker.js';
    this.#worker = new Worker(new URL(file, import.meta.url), { resourceLimits: THREAD_LIMITS, name: 'pass' });
    this.#worker.unref();
    this.#worker.on('message', (notice: PassNotice) => this.#onNotice?.(notice));
    this.#worker.on('error', (error) => this.#onFailure?.(asFailure(error)));
    this.#worker.on('exit', () =>
      this.#onFailure?.(new ShoalError('UNAVAILABLE', 'the thread that reads layers ended')),
    );
  }

  async run(
    blob: RangedBlob,
    target: { fd: number; maxEntries?: number },
    { signal, onBytes }: { signal: AbortSignal; onBytes?: (bytes: number) => void },
  ): Promise<PassedLayer> {
    clearTimeout(this.#timer);
    const failed = new AbortController();
    const both = AbortSignal.any([signal, failed.signal]);
    const result = Promise.withResolvers<PassedLayer>();
    result.promise.catch(() => {});
    const fail = (error: unknown): void => {
      result.reject(error);
      failed.abort(error);
    };
    const room = new Turnstile(REQUESTS_AHEAD);
    this.#onFailure = fail;
    this.#onNotice = (notice) => {
      if (notice.kind === 'taken') {
        freeBytes(notice.bytes);
        room.leave();
      } else if (notice.kind === 'result') result.resolve(passedOf(notice));
      else fail(new ShoalError(notice.code, notice.message, notice.errno === undefined ? {} : { errno: notice.errno }));
    };
    signal.addEventListener('abort', () => fail(signal.reason), { once: true });
    this.#send({ kind: 'begin', digest: blob.digest, fd: target.fd, maxEntries: target.maxEntries });
    for await (const bytes of piecesOf(blob, { signal: both, room })) {
      onBytes?.(bytes.byteLength);
      this.#send({ kind: 'bytes', bytes }, [bytes.buffer as ArrayBuffer]);
    }
    this.#send({ kind: 'end' });
    return await result.promise;
  }

  restUntil(ms: number, then: () => void): void {
    this.#onFailure = then;
    this.#onNotice = undefined;
    this.#timer = setTimeout(then, ms).unref();
  }

  async terminate(): Promise<void> {
    clearTimeout(this.#timer);
    await this.#worker.terminate();
  }

  #send(command: PassCommand, transfer: ArrayBuffer[] = []): void {
    this.#worker.postMessage(command, transfer);
  }
}

/** The blob in order, some requests ahead of who takes it. */
async function* piecesOf(
  blob: RangedBlob,
  { signal, room }: { signal: AbortSignal; room: Turnstile },
): AsyncGenerator<Uint8Array> {
  const pending: Promise<Uint8Array>[] = [];
  let asked = 0;
  const ask = (): void => {
    const length = Math.min(REQUEST_BYTES, blob.size - asked);
    const reading = blob.read(asked, length, { signal }).then((bytes) => ownBytes(bytes));
    reading.catch(() => {});
    pending.push(reading);
    asked += length;
  };
  while (asked < blob.size || pending.length > 0) {
    while (asked < blob.size && room.tryEnter()) ask();
    const next = pending.shift();
    if (next === undefined) await room.changed(signal);
    else yield await next;
    signal.throwIfAborted();
  }
}

/** Counts those inside, who may be a few. */
class Turnstile {
  #free: number;
  #wake = Promise.withResolvers<void>();

  constructor(places: number) {
    this.#free = places;
  }

  tryEnter(): boolean {
    if (this.#free === 0) return false;
    this.#free -= 1;
    return true;
  }

  leave(): void {
    this.#free += 1;
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  async changed(signal: AbortSignal): Promise<void> {
    const { promise, reject } = this.#wake;
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      signal.throwIfAborted();
      await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }
}

function ownBytes(bytes: Uint8Array): Uint8Array {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  if (whole && bytes.byteLength > COPY_BYTES) return bytes;
  const copy = Buffer.allocUnsafeSlow(bytes.byteLength);
  copy.set(bytes);
  return copy;
}

function passedOf(notice: Extract<PassNotice, { kind: 'result' }>): PassedLayer {
  const { packing, tree, chunks, windows, diffId, impliesDirs } = notice;
  return { packing, tree, windows, impliesDirs, chunks: new ChunkTable(chunks), diffId: parseDigest(diffId) };
}

/** A thread that ran out of memory read something that is too large. */
function asFailure(error: unknown): ShoalError {
  const memory = (error as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
  return memory
    ? new ShoalError('TOO_LARGE', 'the layer takes more memory than a pass may have', { cause: error })
    : new ShoalError('UNAVAILABLE', `the thread that reads layers failed: ${String(error)}`, { cause: error });
}
