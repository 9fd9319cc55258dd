import type { Clock } from '../../clock.ts';
import { orAborted } from '../../core/or-aborted.ts';
import { ShoalError } from '../../errors.ts';
import type { ApprovedUrl, UrlPolicy } from '../url-policy.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { Credential, CredentialSource } from './credentials.ts';
import { TOKEN_LIMITS } from './limits.ts';
import { parseRetryAfter, withRetries } from './retry.ts';
import { Secret } from './secret.ts';
import type { Exchange, ExchangeRequest, Transport } from './transport.ts';

/** Which repository of which registry an authorization is for, and whether for writing too. */
export interface AuthorizationScope {
  readonly registry: string;
  readonly repository: string;
  /** Not set: pull only. */
  readonly push?: boolean;
}

/** Authorization headers for registries (distribution spec, token.md; RFC 6750, RFC 7617). */
export interface TokenSource {
  /** The header value to use now, or undefined before the registry has asked for one. */
  current(scope: AuthorizationScope): Secret | undefined;
  /**
   * Obtains a new header value after a 401. Waits for the same scope share one token request. `used` is what the
   * refused request carried. Throws AUTH_REFUSED, or what the token server's failure was.
   */
  answer(
    scope: AuthorizationScope,
    challenge: string | undefined,
    used: Secret | undefined,
    signal: AbortSignal,
  ): Promise<void>;
  /** Ends token requests under way. */
  close(): void;
}

interface Held {
  readonly header: Secret;
  readonly expiresAtMs: number;
}

interface TokenComponents {
  readonly policy: UrlPolicy;
  readonly credentials: CredentialSource;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: () => number;
}

const TOKEN_PATTERN = /^[A-Za-z0-9\-._~+/]+=*$/;

/** A token source; `flightTimeoutMs` bounds one token request. */
export function createTokenSource(components: TokenComponents, init: { flightTimeoutMs?: number } = {}): TokenSource {
  return new Tokens(components, init.flightTimeoutMs ?? TOKEN_LIMITS.flightTimeoutMs);
}

class Tokens implements TokenSource {
  readonly #components: TokenComponents;
  readonly #flightTimeoutMs: number;
  readonly #held = new Map<string, Held>();
  readonly #flights = new Map<string, Promise<void>>();
  readonly #closing = new AbortController();

  constructor(components: TokenComponents, flightTimeoutMs: number) {
    this.#components = components;
    this.#flightTimeoutMs = flightTimeoutMs;
  }

  current(scope: AuthorizationScope): Secret | undefined {
    const key = scopeKey(scope);
    const held = this.#held.get(key);
    if (held === undefined) return undefined;
    if (this.#components.clock.nowMs() < held.expiresAtMs) return held.header;
    this.#held.delete(key);
    return undefined;
  }

  async answer(
    scope: AuthorizationScope,
    challenge: string | undefined,
    used: Secret | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const current = this.current(scope);
    // Someone else got a newer one while this request was under way.
    if (current !== undefined && current !== used) return;
    const key = scopeKey(scope);
    let flight = this.#flights.get(key);
    if (flight === undefined) {
      // Not the first caller's signal: its going away must not fail the others.
      const own = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#flightTimeoutMs)]);
      flight = this.#obtain(scope, challenge, own)
        .then((held) => this.#hold(key, held))
        .finally(() => this.#flights.delete(key));
      flight.catch(() => {});
      this.#flights.set(key, flight);
    }
    await orAborted(flight, signal);
  }

  close(): void {
    this.#closing.abort(new ShoalError('UNAVAILABLE', 'the registry client is closed'));
  }

  #hold(key: string, held: Held): void {
    this.#held.delete(key);
    this.#held.set(key, held);
    const oldest = this.#held.keys().next().value;
    if (this.#held.size > TOKEN_LIMITS.maxCached && oldest !== undefined) this.#held.delete(oldest);
  }

  async #obtain(scope: AuthorizationScope, header: string | undefined, signal: AbortSignal): Promise<Held> {
    const { registry, repository } = scope;
    const challenges = parseChallenges(header ?? '', registry);
    const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm'));
    if (bearer !== undefined) {
      const target = this.#components.policy.token(registry, bearer.parameters.get('realm') as string);
      const credential = await this.#components.credentials.find(registry, repository, { signal });
      return this.#fetchToken(scope, target, bearer, credential, signal);
    }
    if (!challenges.some(({ scheme }) => scheme === 'basic')) {
      const offered = challenges.map(({ scheme }) => scheme.slice(0, 20)).join(', ');
      throw new ShoalError(
        'AUTH_REFUSED',
        `registry ${registry} wants ${offered || 'nothing known'}, not Bearer or Basic`,
      );
    }
    const credential = await this.#components.credentials.find(registry, repository, { signal });
    if (credential?.kind !== 'basic') {
      throw new ShoalError(
        'AUTH_REFUSED',
        `registry ${registry} wants a user name and password for ${repository}, none is configured`,
      );
    }
    return { header: basicHeader(credential), expiresAtMs: Number.POSITIVE_INFINITY };
  }

  #fetchToken(
    scope: AuthorizationScope,
    target: ApprovedUrl,
    challenge: Challenge,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<Held> {
    const parameters = tokenParameters(scope, challenge, target);
    return withRetries(this.#components, {}, signal, async () => {
      const requestedAtMs = this.#components.clock.nowMs();
      const exchange = await this.#request(scope, target, parameters, credential, signal);
      return parseToken(exchange.body, target.url.host, requestedAtMs);
    });
  }

  async #request(
    { registry, repository }: AuthorizationScope,
    target: ApprovedUrl,
    parameters: URLSearchParams,
    credential: Credential | undefined,
    signal: AbortSignal,
  ): Promise<Exchange> {
    const { policy, transport } = this.#components;
    const plan: ExchangeRequest['plan'] = (status) =>
      status === 200 ? { kind: 'upTo', bytes: TOKEN_LIMITS.maxResponseBytes } : { kind: 'discard' };
    let exchange: Exchange;
    if (credential?.kind === 'identity-token') {
      const form = new URLSearchParams(parameters);
      form.set('grant_type', 'refresh_token');
      form.set('refresh_token', credential.token.reveal());
      form.set('client_id', 'shoal');
      const headers = { contentType: 'application/x-www-form-urlencoded' };
      exchange = await transport.request(target, { method: 'POST', headers, body: form.toString(), signal, plan });
    } else {
      const url = new URL(target.url);
      for (const [name, value] of parameters) url.searchParams.append(name, value);
      const headers = credential === undefined ? {} : { authorization: basicHeader(credential).reveal() };
      exchange = await transport.request(policy.token(registry, url.href), { method: 'GET', headers, signal, plan });
    }
    if (exchange.status === 200) return exchange;
    const { status } = exchange;
    const { host } = target.url;
    if (status === 429 || status === 408 || status >= 500) {
      const retryAfterMs = parseRetryAfter(exchange.headers['retry-after'], this.#components.clock);
      throw new ShoalError('REGISTRY_RESPONSE', `token server ${host} answered ${status}`, {
        status,
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      });
    }
    const how = credential === undefined ? 'without credentials' : 'with the configured credentials';
    throw new ShoalError(
      'AUTH_REFUSED',
      `token server ${host} answered ${status} for ${registry}/${repository}, ${how}`,
      { status },
    );
  }
}

/** Asks for pull (and push, when that was asked of us) of this repository only, whatever the challenge would have us ask for; other kinds of scope as given. */
function tokenParameters(
  { repository, push }: AuthorizationScope,
  challenge: Challenge,
  target: ApprovedUrl,
): URLSearchParams {
  const parameters = new URLSearchParams();
  const service = challenge.parameters.get('service');
  if (service !== undefined && !target.url.searchParams.has('service')) parameters.set('service', service);
  const asked = challenge.parameters.get('scope') ?? '';
  const foreign = asked !== '' && !asked.startsWith('repository:');
  const actions = push === true ? 'pull,push' : 'pull';
  parameters.set('scope', foreign ? asked : `repository:${repository}:${actions}`);
  return parameters;
}

function parseToken(body: Uint8Array, host: string, requestedAtMs: number): Held {
  const refuse = (why: string): ShoalError => new ShoalError('AUTH_REFUSED', `token server ${host} ${why}`);
  let answer: Record<string, unknown>;
  try {
    // The parser's message would quote the answer, so it is no cause.
    answer = Object(JSON.parse(Buffer.from(body).toString('utf8')));
  } catch {
    throw refuse('did not answer with JSON');
  }
  const { token = undefined, access_token: accessToken = undefined, expires_in: expiresIn } = answer;
  const value = typeof token === 'string' && token !== '' ? token : accessToken;
  if (typeof value !== 'string' || value.length > TOKEN_LIMITS.maxTokenLength || !TOKEN_PATTERN.test(value)) {
    throw refuse('did not answer with a bearer token');
  }
  const named = typeof expiresIn === 'number' && expiresIn > 0 ? expiresIn * 1000 : TOKEN_LIMITS.defaultLifetimeMs;
  const lifetimeMs = Math.min(named, TOKEN_LIMITS.maxLifetimeMs);
  return {
    header: new Secret(`Bearer ${value}`),
    expiresAtMs: requestedAtMs + lifetimeMs * TOKEN_LIMITS.useFraction,
  };
}

function basicHeader(credential: Extract<Credential, { kind: 'basic' }>): Secret {
  const pair = `${credential.username}:${credential.password.reveal()}`;
  return new Secret(`Basic ${Buffer.from(pair, 'utf8').toString('base64')}`);
}

function scopeKey({ registry, repository, push }: AuthorizationScope): string {
  return `${registry}/${repository}${push === true ? ' push' : ''}`;
}
