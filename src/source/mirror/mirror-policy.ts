import { ShoalError } from '../../errors.ts';
import type { Secret } from '../origin/secret.ts';
import { type ApprovedUrl, approveMirror, type RequestHeaders, type UrlPolicy } from '../url-policy.ts';
import { dragonflyHeaders } from './headers.ts';
import type { Target } from './target.ts';

/** The registry's own short-lived pull token for a repository, where the operator lets mirrors have it. */
export type PullToken = (registry: string, repository: string) => Secret | undefined;

/**
 * The URL policy of one mirror on behalf of one registry: what is asked of it, where it may redirect to, and which
 * headers it gets. The list of headers is closed: nothing a caller says ends up in one but Accept and Range. A mirror
 * never gets a password, and a token only through `pullToken`.
 */
export function createMirrorPolicy(
  components: { policy: UrlPolicy; pullToken: PullToken | undefined },
  init: { target: Target; registry: string; urgency: 'demand' | 'prefetch' },
): UrlPolicy {
  const { policy, pullToken } = components;
  const { target, registry, urgency } = init;
  /** Requests to the mirror itself, not those it redirects to, and their repository. */
  const own = new WeakMap<ApprovedUrl, string>();

  /** What goes to the mirror beside Accept and Range. The operator's words come once, and never in place of ours. */
  function headersOf(url: ApprovedUrl): [name: string, value: string][] {
    const { dragonfly } = target;
    const all: [string, string][] = [];
    // Only blobs are shared between peers; a manifest goes straight through.
    if (dragonfly !== undefined && url.url.pathname.includes('/blobs/')) {
      all.push(...dragonflyHeaders({ urgency, ...dragonfly }));
    } else if (dragonfly?.registry !== undefined) {
      all.push(['x-dragonfly-registry', dragonfly.registry]);
    }
    const ours = new Set(all.map(([name]) => name));
    for (const [name, value] of target.headers) if (!ours.has(name)) all.push([name, value]);
    return all;
  }

  function authorization(url: ApprovedUrl): string | undefined {
    const repository = own.get(url);
    return repository === undefined ? undefined : pullToken?.(registry, repository)?.reveal();
  }

  return {
    registry(_registry, path) {
      const [, repository, rest] = /^\/v2\/(.+)(\/(?:manifests|blobs)\/[^/?#]+)$/.exec(path) ?? [];
      if (repository === undefined) throw new ShoalError('URL_REFUSED', 'not a path of a registry’s API');
      const approved = approveMirror(registry, `${target.base}/${repository}${rest}${target.query}`);
      own.set(approved, repository);
      return approved;
    },
    redirect: (from, location) => approveMirror(registry, location, from),
    token() {
      throw new ShoalError('AUTH_REFUSED', `mirror ${target.name} asks for credentials, which mirrors do not get`, {
        status: 401,
      });
    },
    headers(url: ApprovedUrl, { accept, range }: RequestHeaders) {
      const list = ['user-agent', 'shoal', 'accept-encoding', 'identity'];
      if (accept !== undefined) list.push('accept', accept);
      if (range !== undefined) list.push('range', range);
      if (!own.has(url)) return list;
      for (const [name, value] of headersOf(url)) list.push(name, value);
      const token = authorization(url);
      if (token !== undefined) list.push('authorization', token);
      return list;
    },
    lookup: (reach) => policy.lookup(reach),
  };
}
