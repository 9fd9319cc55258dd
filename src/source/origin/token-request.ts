import type { Clock } from '../../clock.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import type { ApprovedUrl, UrlPolicy } from '../url-policy.ts';
import type { Challenge } from './challenge.ts';
import type { Candidate, Credential } from './credentials.ts';
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

/** A header value, and how long it is good. */
export interface Authorization {
  readonly header: Secret;
  /** When it is time to replace it; it is good until `expiresAtMs`. */
  readonly refreshAtMs: number;
  readonly expiresAtMs: number;
  /** What it was made from; undefined for a token that anybody gets. */
  readonly candidate?: Candidate;
}

/** What a token request needs. */
export interface TokenRequestComponents {
  readonly policy: UrlPolicy;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: () => number;
}

const TOKEN_PATTERN = /^[A-Za-z0-9\-._~+/]+=*$/;

/**
 * Asks the token server `target` for a token, as `candidate` or as anybody; tries again what may pass. Throws AUTH_REFUSED
 * (with its status when the server said no), REGISTRY_RESPONSE, SOURCE_FAILED.
 */
export function requestToken(
  components: TokenRequestComponents,
  scope: AuthorizationScope,
  target: ApprovedUrl,
  challenge: Challenge,
  candidate: Candidate | undefined,
  signal: AbortSignal,
): Promise<Authorization> {
  const parameters = tokenParameters(scope, challenge, target);
  return withRetries(components, {}, signal, async () => {
    const requestedAtMs = components.clock.nowMs();
    const exchange = await askServer(components, scope, target, parameters, candidate, signal);
    const token = parseToken(exchange.body, target.url.host, requestedAtMs);
    return candidate === undefined ? token : { ...token, candidate };
  });
}

async function askServer(
  { policy, transport, clock }: TokenRequestComponents,
  { registry, repository }: AuthorizationScope,
  target: ApprovedUrl,
  parameters: URLSearchParams,
  candidate: Candidate | undefined,
  signal: AbortSignal,
): Promise<Exchange> {
  const credential = candidate?.credential;
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
    const headers = credential?.kind === 'basic' ? { authorization: basicHeader(credential).reveal() } : {};
    exchange = await transport.request(policy.token(registry, url.href), { method: 'GET', headers, signal, plan });
  }
  if (exchange.status === 200) return exchange;
  const { status } = exchange;
  const { host } = target.url;
  if (status === 429 || status === 408 || status >= 500) {
    const retryAfterMs = parseRetryAfter(exchange.headers['retry-after'], clock);
    throw new ShoalError('REGISTRY_RESPONSE', `token server ${host} answered ${status}`, {
      status,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
  const how = candidate === undefined ? 'without credentials' : `with the credentials of ${candidate.source}`;
  throw new ShoalError(
    'AUTH_REFUSED',
    `token server ${host} answered ${status} for ${registry}/${repository}, ${how}`,
    { status },
  );
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

function parseToken(body: Uint8Array, host: string, requestedAtMs: number): Authorization {
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
    refreshAtMs: requestedAtMs + lifetimeMs * TOKEN_LIMITS.refreshFraction,
    expiresAtMs: requestedAtMs + lifetimeMs * TOKEN_LIMITS.useFraction,
  };
}

/** A credential that is sent to the registry itself; it does not end. */
export function directly(candidate: Candidate): Authorization {
  const { credential } = candidate;
  const header =
    credential.kind === 'basic' ? basicHeader(credential) : new Secret(`Bearer ${credential.token.reveal()}`);
  return { header, refreshAtMs: Number.POSITIVE_INFINITY, expiresAtMs: Number.POSITIVE_INFINITY, candidate };
}

/** The token server understood and said no: another credential may fare better. */
export function isRefusal(error: unknown): error is ShoalError {
  return hasCode(error, 'AUTH_REFUSED') && [400, 401, 403].includes(error.context.status ?? 0);
}

function basicHeader(credential: Extract<Credential, { kind: 'basic' }>): Secret {
  const pair = `${credential.username}:${credential.password.reveal()}`;
  return new Secret(`Basic ${Buffer.from(pair, 'utf8').toString('base64')}`);
}
