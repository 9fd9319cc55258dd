import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import type { OnBytes } from '../../image/layer-reader.ts';
import type { Urgency } from '../../store/chunk-store.ts';
import type { ApprovedUrl, UrlPolicy } from '../url-policy.ts';
import { TOKEN_LIMITS } from './limits.ts';
import { RedirectCache } from './redirect-cache.ts';
import { parseRetryAfter } from './retry.ts';
import type { Secret } from './secret.ts';
import type { TokenSource } from './token.ts';
import type { BodyPlan, Exchange, ResponseHeaders, Transport } from './transport.ts';

/** One question to a registry, before authorization and redirects. */
export interface SessionRequest {
  readonly registry: string;
  readonly repository: string;
  /** Path of the API: `/v2/…`. */
  readonly path: string;
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT';
  /** Asks for the right to write. */
  readonly push?: boolean;
  /** Where to send it instead of `path`: where an upload goes on. */
  readonly target?: ApprovedUrl;
  readonly contentType?: string;
  readonly body?: Uint8Array;
  readonly accept?: string;
  readonly range?: string;
  /** True for blobs: where the registry sends us is used again for a while. */
  readonly cacheRedirect?: boolean;
  readonly signal: AbortSignal;
  /** Whether somebody waits for it; may change while it waits for its turn. */
  readonly urgency?: Urgency | undefined;
  /** How long to go on after a first failure, when not as long as usual. */
  readonly retryBudgetMs?: number;
  /** Told of an exact body as it arrives. */
  readonly onBytes?: OnBytes | undefined;
  /** Called for a 2xx or 416 answer; may throw to refuse it unread. */
  plan(status: number, headers: ResponseHeaders): BodyPlan;
}

interface SessionComponents {
  readonly policy: UrlPolicy;
  readonly transport: Transport;
  readonly tokens: TokenSource;
  readonly clock: Clock;
}

/** Sends requests with authorization, and follows redirects hop by hop through the URL policy. One try, no retries. */
export class RegistrySession {
  readonly #components: SessionComponents;
  readonly #redirects: RedirectCache;

  constructor(components: SessionComponents) {
    this.#components = components;
    this.#redirects = new RedirectCache(components.clock);
  }

  /** The final answer, 2xx or 416; `onAnswer` is told when it begins. Throws AUTH_REFUSED, REGISTRY_RESPONSE with its status, URL_REFUSED, SOURCE_FAILED. */
  async send(request: SessionRequest, onAnswer: () => void = () => {}): Promise<Exchange> {
    const key = `${request.registry}${request.path}`;
    const known = request.cacheRedirect === true ? this.#redirects.get(key) : undefined;
    if (known !== undefined) {
      const exchange = await this.#exchange(known, request, onAnswer);
      if (!isStale(exchange.status)) return await this.#follow(request, key, known, exchange, onAnswer);
      this.#redirects.drop(key);
    }
    const target = request.target ?? this.#components.policy.registry(request.registry, request.path);
    const first = await this.#exchange(target, request, onAnswer);
    return await this.#follow(request, key, target, first, onAnswer);
  }

  /** Bounded: the policy counts hops, and each answer to a challenge uses a credential up. */
  async #follow(
    request: SessionRequest,
    key: string,
    first: ApprovedUrl,
    answer: Answer,
    onAnswer: () => void,
  ): Promise<Exchange> {
    let target = first;
    let exchange = answer;
    let answered = 0;
    for (;;) {
      const { status, headers } = exchange;
      if (isFinal(status)) {
        if (request.cacheRedirect === true && target.hops > 0) this.#redirects.set(key, target);
        if (exchange.used !== undefined) this.#components.tokens.accepted(request, exchange.used);
        return exchange;
      }
      if (isRedirect(status)) {
        if (exchange.used !== undefined) this.#components.tokens.accepted(request, exchange.used);
        if (headers.location === undefined) throw this.#refused(target, request, status, headers);
        target = this.#components.policy.redirect(target, headers.location);
      } else if (status === 401 && target.credentials && answered < TOKEN_LIMITS.maxAnswers) {
        answered += 1;
        await this.#components.tokens.answer(request, headers['www-authenticate'], exchange.used, request.signal);
      } else {
        throw this.#refused(target, request, status, headers);
      }
      exchange = await this.#exchange(target, request, onAnswer);
    }
  }

  async #exchange(target: ApprovedUrl, request: SessionRequest, onAnswer: () => void): Promise<Answer> {
    const used = target.credentials ? await this.#components.tokens.authorization(request, request) : undefined;
    const exchange = await this.#components.transport.request(target, {
      method: request.method,
      ...(request.body === undefined ? {} : { body: request.body }),
      headers: {
        ...(request.contentType === undefined ? {} : { contentType: request.contentType }),
        ...(request.accept === undefined ? {} : { accept: request.accept }),
        ...(request.range === undefined ? {} : { range: request.range }),
        ...(used === undefined ? {} : { authorization: used.reveal() }),
      },
      signal: request.signal,
      onBytes: request.onBytes,
      plan(status, headers) {
        if (!isFinal(status)) return { kind: 'discard' };
        onAnswer();
        return request.plan(status, headers);
      },
    });
    return { ...exchange, used };
  }

  #refused(target: ApprovedUrl, request: SessionRequest, status: number, headers: ResponseHeaders): ShoalError {
    const { host } = target.url;
    const what = `${host} answered ${status} for ${request.registry}${request.path}`;
    if (status === 401 || status === 403) {
      const note = target.credentials || target.hops === 0 ? '' : ' (reached by redirect, so it gets no credentials)';
      return new ShoalError('AUTH_REFUSED', `${what}${note}`, { status, ...errorType(headers) });
    }
    const retryAfterMs = parseRetryAfter(headers['retry-after'], this.#components.clock);
    return new ShoalError('REGISTRY_RESPONSE', what, {
      status,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      ...errorType(headers),
    });
  }
}

/** Whose error a Dragonfly client passes on: `backend` is the registry's own. */
function errorType(headers: ResponseHeaders): { errorType?: string } {
  const type = headers['x-dragonfly-error-type']?.toLowerCase();
  return type === 'backend' || type === 'proxy' || type === 'dfdaemon' ? { errorType: type } : {};
}

/** A response, and what its request was authorized with: a refused token differs from one replaced meanwhile. */
interface Answer extends Exchange {
  readonly used: Secret | undefined;
}

function isFinal(status: number): boolean {
  return (status >= 200 && status < 300) || status === 416;
}

function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

/** A remembered address that answers so has expired; whether the blob is there only the registry can say. */
function isStale(status: number): boolean {
  return status >= 400 && status < 500 && status !== 408 && status !== 416 && status !== 429;
}
