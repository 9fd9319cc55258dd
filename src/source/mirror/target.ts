import type { DragonflyRequest } from './headers.ts';
import type { MirrorEntry } from './hosts-file.ts';

/** What kind of thing is asked: a plain mirror, a Dragonfly client as mirror, or one as forward proxy. */
export type TargetKind = 'mirror' | 'dragonfly' | 'proxy';

/** How one mirror is spoken to on behalf of one registry. */
export interface Target {
  readonly kind: TargetKind;
  /** As people know it: `http://127.0.0.1:4001`. */
  readonly name: string;
  /** URL up to the repository. */
  readonly base: string;
  /** `?ns=…`, or nothing. */
  readonly query: string;
  readonly headers: MirrorEntry['headers'];
  /** Undefined for a plain mirror. */
  readonly dragonfly: Omit<DragonflyRequest, 'urgency'> | undefined;
  /** Forward proxy that requests go through. */
  readonly proxy: string | undefined;
  /** Asked when the mirror rests; 2xx is healthy. Undefined: the API's root, which may answer anything below 500. */
  readonly pingUrl: string | undefined;
}

/** What the operator wants Dragonfly to be told. */
export interface DragonflyInit {
  readonly tag: string;
  readonly application: string;
  readonly prefetch: boolean;
}

/** A forward proxy for all registries, as configured. */
export interface ProxyInit {
  readonly url: string;
  readonly pingUrl: string | undefined;
  readonly checkIntervalMs: number;
  readonly fallback: boolean;
  /** Ask for https registries as http: the proxy speaks TLS to them itself (Dragonfly: `useTLS` of a rule). */
  readonly useHttp: boolean;
}

/** A registry as images name it, and the `scheme://host` its API is at. */
export interface Upstream {
  readonly registry: string;
  readonly origin: string;
}

/** A host of a `hosts.toml`. One with any Dragonfly header is taken for a Dragonfly client. */
export function mirrorTarget(entry: MirrorEntry, { registry, origin }: Upstream, init: DragonflyInit): Target {
  const given = entry.headers.find(([name]) => name === 'x-dragonfly-registry')?.[1];
  const isDragonfly = entry.headers.some(([name]) => name.startsWith('x-dragonfly-'));
  const isItself = new URL(entry.origin).host === new URL(origin).host;
  return {
    kind: isDragonfly ? 'dragonfly' : 'mirror',
    name: entry.origin,
    base: entry.origin + entry.path,
    query: isItself ? '' : `?ns=${encodeURIComponent(registry)}`,
    headers: entry.headers,
    dragonfly: isDragonfly ? { ...dragonflySaid(entry, init), registry: withScheme(given) ?? origin } : undefined,
    proxy: undefined,
    pingUrl: entry.pingUrl,
  };
}

/** A forward proxy, on the way to the registry itself. */
export function proxyTarget(proxy: ProxyInit, { origin }: Upstream, init: DragonflyInit): Target {
  const base = proxy.useHttp ? `http://${new URL(origin).host}/v2` : `${origin}/v2`;
  return {
    kind: 'proxy',
    name: proxy.url,
    base,
    query: '',
    headers: [],
    dragonfly: { ...init, registry: undefined },
    proxy: proxy.url,
    pingUrl: proxy.pingUrl,
  };
}

/** The file's own words win over the configuration's. */
function dragonflySaid(entry: MirrorEntry, init: DragonflyInit): DragonflyInit {
  const said = (name: string): string | undefined =>
    entry.headers.find(([each]) => each === `x-dragonfly-${name}`)?.[1];
  const prefetch = said('prefetch');
  return {
    tag: said('tag') ?? init.tag,
    application: said('application') ?? init.application,
    prefetch: prefetch === undefined ? init.prefetch : prefetch === 'true',
  };
}

/** Dragonfly refuses a registry without its scheme. */
function withScheme(registry: string | undefined): string | undefined {
  if (registry === undefined) return undefined;
  return /^https?:\/\//i.test(registry) ? registry : `https://${registry}`;
}
