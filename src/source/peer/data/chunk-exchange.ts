import type { Dispatcher } from 'undici';
import { takeBytes } from '../../../core/byte-pool.ts';
import type { ChunkRef } from '../../../core/chunk.ts';
import { ShoalError } from '../../../errors.ts';
import { DATA_LIMITS } from './limits.ts';

/** A chunk's bytes as a neighbour sent them, not verified, and when its first byte came (performance.now()). */
export interface ReceivedChunk {
  readonly bytes: Uint8Array;
  readonly firstByteMs: number;
}

/** What one exchange is about. */
export interface ExchangeInit {
  readonly ref: Pick<ChunkRef, 'digest' | 'length'>;
  /** `ref.length` is the most it may be, not what it is. */
  readonly isAtMost?: boolean;
  /** The neighbour as an operator knows it. */
  readonly peer: string;
  readonly signal: AbortSignal;
  readonly resolve: (received: ReceivedChunk) => void;
  readonly reject: (error: unknown) => void;
}

type Headers = Readonly<Record<string, string | string[] | undefined>>;

const NOTHING = new Uint8Array(0);

/**
 * Collects one answer of a neighbour into one buffer of exactly the chunk's length. Rejects with CHUNK_MISSING (404),
 * UNAVAILABLE (503, `retryAfterMs` says when again), CHUNK_CORRUPT (200 with another length) or SOURCE_FAILED; the
 * transfer must make progress (F12).
 */
export class ChunkExchange implements Dispatcher.DispatchHandler {
  readonly #init: ExchangeInit;
  readonly #onAbort = (): void => this.#fail(this.#init.signal.reason);
  #timer: NodeJS.Timeout;
  #controller: Dispatcher.DispatchController | undefined;
  #settled = false;
  #firstByteMs = 0;
  #bytes: Uint8Array = NOTHING;
  #filled = 0;
  #filledBefore = 0;

  constructor(init: ExchangeInit) {
    this.#init = init;
    this.#timer = setTimeout(
      () => this.#fail(this.#error('SOURCE_FAILED', 'has no connection free')),
      DATA_LIMITS.turnMs,
    );
    init.signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#settled) controller.abort(new Error('no longer wanted'));
    else this.#watch();
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Headers): void {
    if (this.#settled) return;
    // 102: it is still getting the chunk.
    this.#watch();
    if (status < 200) return;
    if (status === 200) this.#begin(headers);
    else if (status === 404) this.#settleWith(this.#error('CHUNK_MISSING', 'does not have it'));
    else if (status === 503) this.#settleWith(this.#busy(headers));
    else this.#fail(this.#error('SOURCE_FAILED', `answers ${status}`));
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.#settled) return;
    const end = this.#filled + chunk.byteLength;
    if (end > this.#bytes.byteLength) {
      this.#fail(this.#error('CHUNK_CORRUPT', `sends more than ${this.#bytes.byteLength} bytes`));
      return;
    }
    this.#bytes.set(chunk, this.#filled);
    this.#filled = end;
  }

  onResponseEnd(): void {
    if (this.#settled) return;
    if (this.#filled !== this.#bytes.byteLength) {
      this.#fail(this.#error('SOURCE_FAILED', `sent ${this.#filled} of ${this.#bytes.byteLength} bytes`));
    } else if (this.#settle()) {
      this.#init.resolve({ bytes: this.#bytes, firstByteMs: this.#firstByteMs });
    }
  }

  onResponseError(_controller: unknown, error: Error): void {
    const code = (error as NodeJS.ErrnoException).code ?? error.name;
    const why = error instanceof ShoalError ? error.message : `connection failed (${code})`;
    this.#fail(this.#error('SOURCE_FAILED', why, error));
  }

  #begin(headers: Headers): void {
    const { ref, isAtMost } = this.#init;
    const stated = Number(headers['content-length']);
    const length = isAtMost === true && stated > 0 && stated < ref.length ? stated : ref.length;
    const coded = headers['content-encoding'] ?? headers['transfer-encoding'];
    if (headers['content-length'] !== String(length) || coded !== undefined || length > DATA_LIMITS.maxChunkBytes) {
      this.#fail(this.#error('CHUNK_CORRUPT', `answers with ${headers['content-length']} bytes instead of ${length}`));
      return;
    }
    this.#firstByteMs = performance.now();
    // Not zeroed: none of it is used unless all of it was filled and hashes to the digest.
    this.#bytes = takeBytes(length);
  }

  #watch(): void {
    clearTimeout(this.#timer);
    this.#filledBefore = this.#filled;
    // What came while this process was busy elsewhere is read before it is missed.
    const timer: NodeJS.Timeout = setTimeout(() => setImmediate(() => this.#look(timer)), DATA_LIMITS.progressMs);
    this.#timer = timer;
  }

  #look(timer: NodeJS.Timeout): void {
    if (this.#settled || timer !== this.#timer) return;
    const { progressBytes, progressMs } = DATA_LIMITS;
    const wanted = Math.min(progressBytes, Math.max(1, this.#bytes.byteLength));
    if (this.#filled - this.#filledBefore >= wanted) this.#watch();
    else this.#fail(this.#error('SOURCE_FAILED', `made no progress in ${progressMs} ms`));
  }

  #busy(headers: Headers): ShoalError {
    const seconds = Number(headers['retry-after']);
    const retryAfterMs = seconds > 0 && seconds < 60 ? seconds * 1_000 : 1_000;
    return new ShoalError('UNAVAILABLE', `neighbour ${this.#init.peer} is busy`, { retryAfterMs });
  }

  /** The answer is whole and polite: its (empty) body is left to end by itself, so that the connection lives. */
  #settleWith(error: ShoalError): void {
    if (this.#settle()) this.#init.reject(error);
  }

  #fail(error: unknown): void {
    if (!this.#settle()) return;
    this.#controller?.abort(error instanceof Error ? error : new Error('aborted'));
    this.#init.reject(error);
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#init.signal.removeEventListener('abort', this.#onAbort);
    return true;
  }

  #error(code: 'SOURCE_FAILED' | 'CHUNK_MISSING' | 'CHUNK_CORRUPT', what: string, cause?: unknown): ShoalError {
    return new ShoalError(code, `neighbour ${this.#init.peer} ${what}`, { cause });
  }
}
