import { orAborted } from '../../core/or-aborted.ts';
import { backoffMs } from '../../core/policy/backoff.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import { parseChallenges } from './challenge.ts';
import { type Candidate, type Credential, type CredentialChain, sameCredential } from './credentials.ts';
import { TOKEN_LIMITS } from './limits.ts';
import type { Secret } from './secret.ts';
import {
  type Authorization,
  type AuthorizationScope,
  directly,
  isRefusal,
  requestToken,
  type TokenRequestComponents,
} from './token-request.ts';

/** Authorization headers for registries (distribution spec, token.md; RFC 6750, RFC 7617). */
export interface TokenSource {
  /**
   * The header value to send now, or undefined before the registry has asked for one. A token near its end is replaced
   * behind the back of whoever uses it, one that has ended before it is used. Throws AUTH_REFUSED while the registry's
   * last refusal of everything we have is fresh.
   */
  authorization(scope: AuthorizationScope, options: { signal: AbortSignal }): Promise<Secret | undefined>;
  /**
   * Obtains a new header value after a 401. Waits for the same scope share one token request. `used` is what the
   * refused request carried: one that was never accepted speaks against its credential, and the next one is tried.
   * Throws AUTH_REFUSED when there is none left, or what the token server's failure was.
   */
  answer(
    scope: AuthorizationScope,
    challenge: string | undefined,
    used: Secret | undefined,
    signal: AbortSignal,
  ): Promise<void>;
  /** The registry took a request with this header value. */
  accepted(scope: AuthorizationScope, used: Secret): void;
  /** A token that may be lent to a mirror: for pulls of this one repository, and good for five minutes at most. */
  lendable(scope: AuthorizationScope): Secret | undefined;
  /** There are new credentials for this repository: what was refused before says nothing any more. */
  renewed(scope: AuthorizationScope): void;
  /** Ends token requests under way. */
  close(): void;
}

/** What is known of one repository's authorization. */
interface State {
  held: Authorization | undefined;
  /** What the last header value was made from. */
  last: Candidate | undefined;
  /** Requests were let in with `last`, and none was refused since. */
  isProven: boolean;
  /** The last WWW-Authenticate header. */
  challenge: string | undefined;
  /** Credentials refused since the last success. */
  refused: Credential[];
  anonymousRefused: boolean;
  /** After everything was refused: nobody is asked before this. */
  resting: { untilMs: number; error: ShoalError } | undefined;
  exhaustions: number;
  flight: Promise<void> | undefined;
}

interface TokenComponents extends TokenRequestComponents {
  readonly credentials: CredentialChain;
}

/** A token source; `flightTimeoutMs` bounds one token request. */
export function createTokenSource(components: TokenComponents, init: { flightTimeoutMs?: number } = {}): TokenSource {
  return new Tokens(components, init.flightTimeoutMs ?? TOKEN_LIMITS.flightTimeoutMs);
}

class Tokens implements TokenSource {
  readonly #components: TokenComponents;
  readonly #flightTimeoutMs: number;
  readonly #states = new Map<string, State>();
  readonly #closing = new AbortController();

  constructor(components: TokenComponents, flightTimeoutMs: number) {
    this.#components = components;
    this.#flightTimeoutMs = flightTimeoutMs;
  }

  async authorization(scope: AuthorizationScope, { signal }: { signal: AbortSignal }): Promise<Secret | undefined> {
    const state = this.#states.get(scopeKey(scope));
    if (state === undefined) return undefined;
    const nowMs = this.#components.clock.nowMs();
    const { held, resting } = state;
    if (held !== undefined && nowMs < held.refreshAtMs) return held.header;
    const isResting = resting !== undefined && nowMs < resting.untilMs;
    if (held !== undefined && nowMs < held.expiresAtMs) {
      if (isResting) return held.header;
      // Somebody has to start it; nobody has to wait, and if it fails the old one is still good for a while.
      this.#fly(scope, state).catch(() => {});
      return held.header;
    }
    if (isResting) throw resting.error;
    if (held === undefined) return undefined;
    await orAborted(this.#fly(scope, state), signal);
    return state.held?.header;
  }

  async answer(
    scope: AuthorizationScope,
    challenge: string | undefined,
    used: Secret | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const state = this.#state(scope);
    const { held } = state;
    // Someone else got a newer one while this request was under way.
    if (held !== undefined && held.header !== used && this.#components.clock.nowMs() < held.expiresAtMs) return;
    if (state.flight === undefined) {
      state.challenge = challenge;
      if (held !== undefined && held.header === used) this.#drop(state, held);
    }
    await orAborted(this.#fly(scope, state), signal);
  }

  accepted(scope: AuthorizationScope, used: Secret): void {
    const state = this.#states.get(scopeKey(scope));
    if (state === undefined || state.held?.header !== used || state.isProven) return;
    state.isProven = true;
    state.exhaustions = 0;
    forgetRefusals(state);
  }

  lendable(scope: AuthorizationScope): Secret | undefined {
    const held = this.#states.get(scopeKey(scope))?.held;
    if (held === undefined) return undefined;
    const leftMs = held.expiresAtMs - this.#components.clock.nowMs();
    return leftMs > 0 && leftMs <= TOKEN_LIMITS.longestLentMs ? held.header : undefined;
  }

  renewed(scope: AuthorizationScope): void {
    const state = this.#states.get(scopeKey(scope));
    if (state === undefined) return;
    state.resting = undefined;
    forgetRefusals(state);
  }

  close(): void {
    this.#closing.abort(new ShoalError('UNAVAILABLE', 'the registry client is closed'));
  }

  #state(scope: AuthorizationScope): State {
    const key = scopeKey(scope);
    let state = this.#states.get(key);
    if (state === undefined) {
      state = {
        held: undefined,
        last: undefined,
        isProven: false,
        challenge: undefined,
        refused: [],
        anonymousRefused: false,
        resting: undefined,
        exhaustions: 0,
        flight: undefined,
      };
    }
    this.#states.delete(key);
    this.#states.set(key, state);
    const oldest = this.#states.keys().next().value;
    if (this.#states.size > TOKEN_LIMITS.maxCached && oldest !== undefined) this.#states.delete(oldest);
    return state;
  }

  /** A header value was refused. A token that had worked has ended; a password that had worked was changed. */
  #drop(state: State, { candidate, expiresAtMs }: Authorization): void {
    const wasGood = state.isProven && Number.isFinite(expiresAtMs);
    state.held = undefined;
    state.isProven = false;
    if (wasGood) return;
    if (candidate === undefined) state.anonymousRefused = true;
    else state.refused.push(candidate.credential);
  }

  /** Not with the first caller's signal: its going away must not fail the others. */
  #fly(scope: AuthorizationScope, state: State): Promise<void> {
    if (state.flight !== undefined) return state.flight;
    const own = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(this.#flightTimeoutMs)]);
    const flight = this.#obtain(scope, state, own)
      .then((held) => {
        const { candidate } = held;
        const isSame =
          candidate === undefined || state.last === undefined
            ? candidate === state.last
            : sameCredential(candidate.credential, state.last.credential);
        if (!isSame) state.isProven = false;
        state.held = held;
        state.last = candidate;
      })
      .finally(() => {
        state.flight = undefined;
      });
    flight.catch(() => {});
    state.flight = flight;
    return flight;
  }

  async #obtain(scope: AuthorizationScope, state: State, signal: AbortSignal): Promise<Authorization> {
    const { registry, repository } = scope;
    const challenges = parseChallenges(state.challenge ?? '', registry);
    const bearer = challenges.find(({ scheme, parameters }) => scheme === 'bearer' && parameters.has('realm'));
    const takesBasic = challenges.some(({ scheme }) => scheme === 'basic');
    if (bearer === undefined && !takesBasic) {
      const offered = challenges.map(({ scheme }) => scheme.slice(0, 20)).join(', ');
      throw new ShoalError(
        'AUTH_REFUSED',
        `registry ${registry} wants ${offered || 'nothing known'}, not Bearer or Basic`,
      );
    }
    const realm = bearer?.parameters.get('realm');
    const target = realm === undefined ? undefined : this.#components.policy.token(registry, realm);
    const refused = (credential: Credential): boolean =>
      state.refused.some((other) => sameCredential(other, credential));
    let tried: Candidate | undefined;
    let last: ShoalError | undefined;
    try {
      for await (const candidate of this.#components.credentials.candidates(registry, repository, {
        signal,
        refused,
      })) {
        tried = candidate;
        if (refused(candidate.credential)) continue;
        if (target === undefined || bearer === undefined) {
          if (candidate.credential.kind === 'identity-token') continue;
          return directly(candidate);
        }
        if (candidate.credential.kind === 'registry-token') return directly(candidate);
        try {
          return await requestToken(this.#components, scope, target, bearer, candidate, signal);
        } catch (error) {
          if (!isRefusal(error)) throw error;
          last = error;
          state.refused.push(candidate.credential);
        }
      }
    } catch (error) {
      // A source that failed, after all others were tried.
      if (!hasCode(error, 'CONFIG_INVALID')) throw error;
      last ??= error;
    }
    if (target !== undefined && bearer !== undefined && !state.anonymousRefused) {
      try {
        return await requestToken(this.#components, scope, target, bearer, undefined, signal);
      } catch (error) {
        if (!isRefusal(error)) throw error;
        last ??= error;
      }
    }
    throw this.#exhausted(scope, state, tried, last);
  }

  /** Everything there is was refused: the next one to ask starts anew, but not at once, lest an account be locked. */
  #exhausted(
    { registry, repository }: AuthorizationScope,
    state: State,
    tried: Candidate | undefined,
    last: ShoalError | undefined,
  ): ShoalError {
    const why =
      tried === undefined
        ? `registry ${registry} wants a user name and password for ${repository}, none is configured`
        : `registry ${registry} answered 401 for ${repository} with the credentials of ${tried.source}`;
    const error = last ?? new ShoalError('AUTH_REFUSED', why, { status: 401 });
    state.exhaustions += 1;
    state.resting = {
      untilMs: this.#components.clock.nowMs() + backoffMs(state.exhaustions, TOKEN_LIMITS.refusedRest),
      error,
    };
    forgetRefusals(state);
    return error;
  }
}

function forgetRefusals(state: State): void {
  state.refused = [];
  state.anonymousRefused = false;
}

function scopeKey({ registry, repository, push }: AuthorizationScope): string {
  return `${registry}/${repository}${push === true ? ' push' : ''}`;
}
