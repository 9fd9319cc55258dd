import { Agent, buildConnector, type Dispatcher, ProxyAgent } from 'undici';
import { ShoalError } from '../../errors.ts';
import type { OnBytes } from '../../image/layer-reader.ts';
import { inPlaceReads } from '../in-place-reads.ts';
import type { ApprovedUrl, Reach, RequestHeaders, UrlPolicy } from '../url-policy.ts';
import { ExchangeHandler } from './exchange-handler.ts';
import { REGISTRY_LIMITS } from './limits.ts';

/** Response headers by lower-case name; one that came several times is joined with ", ". */
export type ResponseHeaders = Readonly<Record<string, string | undefined>>;

/**
 * What to do with a body: `exact` reads precisely that many bytes, `upTo` at most that many, `discard` drops it.
 * A plan that throws refuses the response: its body is not read and the connection is cut.
 */
export type BodyPlan = { readonly kind: 'exact' | 'upTo'; readonly bytes: number } | { readonly kind: 'discard' };

/** One request to a URL the policy let through. */
export interface ExchangeRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT';
  readonly headers: RequestHeaders;
  readonly body?: string | Uint8Array;
  readonly signal: AbortSignal;
  /** Told of an exact body as it arrives. */
  readonly onBytes?: OnBytes | undefined;
  plan(status: number, headers: ResponseHeaders): BodyPlan;
}

/** A complete response; `body` is empty when the plan discarded it. */
export interface Exchange {
  readonly status: number;
  readonly headers: ResponseHeaders;
  readonly body: Uint8Array;
}

/**
 * HTTP/1.1 with keep-alive, without pipelining, redirects or retries. Throws SOURCE_FAILED when the network fails,
 * REGISTRY_RESPONSE for an answer that breaks the protocol, URL_REFUSED when a name resolves out of reach.
 */
export interface Transport {
  request(target: ApprovedUrl, request: ExchangeRequest): Promise<Exchange>;
  close(): Promise<void>;
}

/** Tuning of the transport, defaults in `REGISTRY_LIMITS`. */
export interface TransportInit {
  readonly connections?: number;
  readonly connectTimeoutMs?: number;
  readonly headersTimeoutMs?: number;
  readonly stallTimeoutMs?: number;
  readonly attemptTimeoutMs?: number;
  /** PEM certificates trusted in place of the built-in ones. */
  readonly ca?: string;
  /** How TLS is spoken, in place of `ca`. */
  readonly tls?: TransportTls;
  /** Requests go through this forward proxy (`http://host:port`), which resolves names itself. */
  readonly proxy?: string;
}

/** PEM texts; certificates and keys are pairs in the same order. */
export interface TransportTls {
  readonly ca?: readonly string[];
  readonly cert?: readonly string[];
  readonly key?: readonly string[];
  /** False: any certificate will do, as `skip_verify` asks. */
  readonly rejectUnauthorized?: boolean;
}

/** A transport over undici. */
export function createTransport(components: { policy: UrlPolicy }, init: TransportInit = {}): Transport {
  return new UndiciTransport(components.policy, init);
}

class UndiciTransport implements Transport {
  readonly #policy: UrlPolicy;
  readonly #init: Required<Omit<TransportInit, 'ca' | 'tls' | 'proxy'>> & Pick<TransportInit, 'ca' | 'tls' | 'proxy'>;
  /** One per reach: a connection is only reused by requests that may go to the same classes of address. */
  readonly #agents = new Map<Reach, Dispatcher>();
  #closed = false;

  constructor(policy: UrlPolicy, init: TransportInit) {
    this.#policy = policy;
    const { connections, connectTimeoutMs, headersTimeoutMs, stallTimeoutMs, attemptTimeoutMs } = REGISTRY_LIMITS;
    this.#init = { connections, connectTimeoutMs, headersTimeoutMs, stallTimeoutMs, attemptTimeoutMs, ...init };
  }

  request(target: ApprovedUrl, request: ExchangeRequest): Promise<Exchange> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the registry client is closed');
      request.signal.throwIfAborted();
      const handler = new ExchangeHandler(target, request, this.#init.attemptTimeoutMs, resolve, reject);
      // A forward proxy is told the whole URL; https goes through a tunnel, which its agent makes.
      const { proxy } = this.#init;
      const absolute = proxy !== undefined && target.url.protocol === 'http:';
      const headers = this.#policy.headers(target, request.headers);
      const options: Dispatcher.DispatchOptions = {
        origin: absolute ? proxy : target.url.origin,
        path: absolute ? target.url.href : target.url.pathname + target.url.search,
        method: request.method,
        headers: absolute ? ['host', target.url.host, ...headers] : headers,
        body: request.body ?? null,
        idempotent: true,
      };
      try {
        this.#agent(target).dispatch(options, handler);
      } catch (error) {
        handler.onResponseError(undefined, error as Error);
      }
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const gone = new ShoalError('UNAVAILABLE', 'the registry client is closed');
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy(gone)));
    this.#agents.clear();
  }

  #agent({ reach, url }: ApprovedUrl): Dispatcher {
    let agent = this.#agents.get(reach);
    if (agent === undefined) {
      agent = this.#makeAgent(reach, url.protocol === 'https:' ? this.#init.proxy : undefined);
      this.#agents.set(reach, agent);
    }
    return agent;
  }

  #makeAgent(reach: Reach, tunnel: string | undefined): Dispatcher {
    const { connections, connectTimeoutMs, headersTimeoutMs, stallTimeoutMs, ca, tls } = this.#init;
    const secure = tls ?? (ca === undefined ? {} : { ca });
    const connect = { timeout: connectTimeoutMs, allowH2: false, lookup: this.#policy.lookup(reach) };
    const options = {
      connections,
      pipelining: 1,
      allowH2: false,
      maxHeaderSize: REGISTRY_LIMITS.maxHeaderBytes,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: stallTimeoutMs,
    };
    if (tunnel !== undefined) {
      return new ProxyAgent({
        ...options,
        uri: tunnel,
        proxyTls: connect,
        requestTls: { ...connect, ...secure },
      } as never);
    }
    return new Agent({
      ...options,
      connect: buildConnector({ ...connect, ...secure, ...inPlaceReads } as buildConnector.BuildOptions),
    });
  }
}
