import type { Dispatcher } from 'undici';
import { takeBytes } from '../../core/byte-pool.ts';
import { ShoalError } from '../../errors.ts';
import type { ApprovedUrl } from '../url-policy.ts';
import { REGISTRY_LIMITS } from './limits.ts';
import type { Exchange, ExchangeRequest, ResponseHeaders } from './transport.ts';

type IncomingHeaders = Readonly<Record<string, string | string[] | undefined>>;

const EMPTY = new Uint8Array(0);

/** Collects one response into one buffer that is allocated when the headers are known; bytes are copied once. */
export class ExchangeHandler implements Dispatcher.DispatchHandler {
  readonly #target: ApprovedUrl;
  readonly #request: ExchangeRequest;
  readonly #resolve: (exchange: Exchange) => void;
  readonly #reject: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  readonly #onAbort = (): void => this.#fail(this.#request.signal.reason);
  #controller: Dispatcher.DispatchController | undefined;
  #settled = false;
  #status = 0;
  #headers: ResponseHeaders = {};
  #body: Uint8Array = EMPTY;
  #filled = 0;
  #limit = 0;
  #kind: 'exact' | 'upTo' | 'discard' = 'discard';

  constructor(
    target: ApprovedUrl,
    request: ExchangeRequest,
    timeoutMs: number,
    resolve: (exchange: Exchange) => void,
    reject: (error: unknown) => void,
  ) {
    this.#target = target;
    this.#request = request;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#timer = setTimeout(
      () => this.#fail(this.#error('SOURCE_FAILED', `no answer within ${timeoutMs} ms`)),
      timeoutMs,
    );
    request.signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // Given up while it was queued for a connection.
    if (this.#settled) controller.abort(new Error('no longer wanted'));
    else this.#controller = controller;
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHeaders): void {
    if (status < 200 || this.#settled) return;
    this.#status = status;
    this.#headers = flatten(headers);
    try {
      const plan = this.#request.plan(status, this.#headers);
      this.#kind = plan.kind;
      this.#limit = plan.kind === 'discard' ? REGISTRY_LIMITS.maxDiscardBytes : plan.bytes;
      if (plan.kind !== 'discard') this.#body = this.#allocate(plan.kind);
    } catch (error) {
      this.#fail(error);
      return;
    }
    // Who only needs the status goes on; the body is drained behind so that the connection can be used again.
    if (this.#kind === 'discard') this.#succeed();
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    // The buffer may be somebody else's by now.
    if (this.#settled && this.#kind !== 'discard') return;
    const end = this.#filled + chunk.byteLength;
    if (end > this.#limit) {
      if (this.#kind === 'discard') controller.abort(new Error('body not wanted'));
      else this.#fail(this.#error('REGISTRY_RESPONSE', `sends more than the ${this.#limit} bytes expected`));
      return;
    }
    if (this.#kind !== 'discard') {
      if (end > this.#body.byteLength) this.#grow(end);
      this.#body.set(chunk, this.#filled);
    }
    this.#filled = end;
    if (this.#kind === 'exact' && !this.#settled) this.#request.onBytes?.(this.#body, end);
  }

  onResponseEnd(): void {
    if (this.#kind === 'exact' && this.#filled !== this.#limit) {
      this.#fail(this.#error('SOURCE_FAILED', `sent ${this.#filled} of ${this.#limit} bytes`));
    } else {
      this.#succeed();
    }
  }

  onResponseError(_controller: unknown, error: Error): void {
    this.#fail(this.#translate(error));
  }

  /** Not zeroed: no byte of it is handed out that the response did not fill. */
  #allocate(kind: 'exact' | 'upTo'): Uint8Array {
    if (kind === 'exact') return takeBytes(this.#limit);
    const announced = Number(this.#headers['content-length'] ?? 16_384);
    if (announced > this.#limit) {
      throw this.#error('REGISTRY_RESPONSE', `announces ${announced} bytes, limit ${this.#limit}`);
    }
    return Buffer.allocUnsafeSlow(Number.isSafeInteger(announced) ? announced : 0);
  }

  #grow(needed: number): void {
    const grown = Buffer.allocUnsafeSlow(Math.min(this.#limit, Math.max(needed, 2 * this.#body.byteLength)));
    grown.set(this.#body.subarray(0, this.#filled));
    this.#body = grown;
  }

  #succeed(): void {
    if (!this.#settle()) return;
    this.#resolve({ status: this.#status, headers: this.#headers, body: this.#body.subarray(0, this.#filled) });
  }

  #fail(error: unknown): void {
    if (!this.#settle()) return;
    this.#controller?.abort(error instanceof Error ? error : new Error('aborted'));
    this.#reject(error);
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#request.signal.removeEventListener('abort', this.#onAbort);
    return true;
  }

  #translate(error: Error): ShoalError {
    const known = findShoalError(error);
    if (known !== undefined) return known;
    const code = (error as NodeJS.ErrnoException).code ?? error.name;
    const endedEarly = code === 'HPE_INVALID_EOF_STATE';
    if (!endedEarly && /^UND_ERR_(HEADERS_OVERFLOW|INVALID_ARG)|^HPE_|^HTTPParserError$/.test(code)) {
      return this.#error('REGISTRY_RESPONSE', `answers with something that is not HTTP/1.1 (${code})`, error);
    }
    if (/CERT|^ERR_TLS|SELF_SIGNED|UNABLE_TO_|^ERR_SSL/.test(code)) {
      return this.#error('REGISTRY_RESPONSE', `its TLS certificate or handshake is refused (${code})`, error);
    }
    return this.#error('SOURCE_FAILED', `connection failed (${code})`, error);
  }

  /** Names the host only: query strings of presigned URLs are credentials. */
  #error(code: 'SOURCE_FAILED' | 'REGISTRY_RESPONSE', what: string, cause?: unknown): ShoalError {
    return new ShoalError(code, `${this.#target.url.host}: ${what}`, { cause });
  }
}

function flatten(headers: IncomingHeaders): ResponseHeaders {
  const flat: Record<string, string | undefined> = Object.create(null);
  for (const [name, value] of Object.entries(headers)) flat[name] = Array.isArray(value) ? value.join(', ') : value;
  return flat;
}

/** A refusal of ours may come back wrapped, once per address that was tried. */
function findShoalError(error: unknown, depth = 0): ShoalError | undefined {
  if (error instanceof ShoalError) return error;
  if (!(error instanceof Error) || depth > 3) return undefined;
  const inner = error instanceof AggregateError ? error.errors : [error.cause];
  return inner.map((each) => findShoalError(each, depth + 1)).find((each) => each !== undefined);
}
