import { hasCode, type ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { Secret } from './secret.ts';

/** What proves to a registry who we are. */
export type Credential =
  /** User name and password. */
  | { readonly kind: 'basic'; readonly username: string; readonly password: Secret }
  /** A refresh token of the registry's token server. */
  | { readonly kind: 'identity-token'; readonly token: Secret }
  /** A bearer token that the registry takes as it is. */
  | { readonly kind: 'registry-token'; readonly token: Secret };

/** How credentials are looked for. */
export interface FindOptions {
  readonly signal: AbortSignal;
  /** True for credentials that were just refused: a source that keeps copies asks anew when it only has such. */
  refused?(credential: Credential): boolean;
}

/** One place credentials come from. */
export interface CredentialSource {
  /** As an operator knows it, for errors and the log: `docker config`. */
  readonly name: string;
  /** Credentials for a registry (as references name it: `docker.io`) and a repository of it, best first. */
  find(registry: string, repository: string, options: FindOptions): Promise<readonly Credential[]>;
}

/** A credential, and the name of the source it is from. */
export interface Candidate {
  readonly credential: Credential;
  readonly source: string;
}

/** All credentials that may be tried for a repository, in order; each source is asked when it is its turn. */
export interface CredentialChain {
  candidates(registry: string, repository: string, options: FindOptions): AsyncIterable<Candidate>;
}

/**
 * Asks the sources in order. One that fails (CONFIG_INVALID: a broken file, a helper that ends with an error) is passed
 * over; when none of the others was good enough either, its error is thrown at the end.
 */
export function chainCredentials(
  sources: readonly CredentialSource[],
  components: { readonly log?: Logger } = {},
): CredentialChain {
  return {
    async *candidates(registry, repository, options) {
      let failure: ShoalError | undefined;
      for (const source of sources) {
        try {
          for (const credential of await source.find(registry, repository, options)) {
            yield { credential, source: source.name };
          }
        } catch (error) {
          if (!hasCode(error, 'CONFIG_INVALID')) throw error;
          options.signal.throwIfAborted();
          components.log?.warn('credentials could not be read', { source: source.name, registry, why: error.message });
          failure ??= error;
        }
      }
      if (failure !== undefined) throw failure;
    },
  };
}

/** User name and password as a credential. */
export function basicCredential(username: string, password: string): Credential {
  return { kind: 'basic', username, password: new Secret(password) };
}

/** True when both are the same credential; secrets are compared in constant time. */
export function sameCredential(a: Credential, b: Credential): boolean {
  if (a.kind === 'basic') return b.kind === 'basic' && a.username === b.username && a.password.equals(b.password);
  return b.kind === a.kind && a.token.equals(b.token);
}

/** Docker Hub's names: helpers, config files and its API call it differently. */
const DOCKER_HUB_HOSTS = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);

/** Host of a config key such as `https://index.docker.io/v1/` or `quay.io`, one name for all of Docker Hub's. */
export function canonicalHost(key: string): string {
  const host = key
    .replace(/^https?:\/\//i, '')
    .replace(/\/.*$/s, '')
    .toLowerCase();
  return DOCKER_HUB_HOSTS.has(host) ? 'docker.io' : host;
}
