import { hash } from 'node:crypto';
import { createEndpoint, type Endpoint } from './endpoint.ts';
import type { HostsDirectory, RegistryHosts } from './hosts-directory.ts';
import type { MirrorEntry } from './hosts-file.ts';
import { MIRROR_LIMITS } from './limits.ts';
import {
  createMirrorHost,
  type MirrorConnection,
  type MirrorHost,
  type MirrorHostComponents,
  type MirrorTimes,
  pingMirror,
  tlsOf,
} from './mirror-host.ts';
import { createPieceCache, type PieceCache } from './piece-blob.ts';
import { type DragonflyInit, mirrorTarget, type ProxyInit, proxyTarget, type Target, type Upstream } from './target.ts';

/** What is asked for one registry's content, in order. The same object as long as its file does not change. */
export interface MirrorChain {
  readonly registry: string;
  readonly hosts: readonly MirrorHost[];
  /** May the registry itself be asked after them. */
  readonly origin: { readonly pull: boolean; readonly resolve: boolean };
  readonly from: RegistryHosts;
}

/** The chain of each registry, made from the directory of `hosts.toml` files and the configured proxy. */
export interface MirrorChains {
  /** At once when the file was looked at a moment ago. Never throws. */
  of(registry: string): MirrorChain | Promise<MirrorChain>;
  /** Registries that were asked about. */
  registries(): readonly string[];
  /** Cuts all connections to mirrors. Idempotent. */
  close(): Promise<void>;
}

export interface MirrorChainsInit extends MirrorTimes {
  readonly dragonfly: DragonflyInit;
  readonly proxy?: ProxyInit | undefined;
}

export function createMirrorChains(
  components: MirrorHostComponents & { directory: HostsDirectory },
  init: MirrorChainsInit,
): MirrorChains {
  return new Chains(components, init);
}

/** Docker Hub goes by several names. */
const HUB = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);

/** One thing to ask, and what tells it from another. */
interface Wanted {
  readonly key: string;
  readonly target: Target;
  readonly pull: boolean;
  readonly resolve: boolean;
  readonly connection: MirrorConnection;
  readonly failureLimit: number | undefined;
  readonly checkIntervalMs: number | undefined;
}

/** What all registries share that one mirror stands for. */
interface Shared {
  readonly endpoint: Endpoint;
  readonly pieces: PieceCache;
}

class Chains implements MirrorChains {
  readonly #components: MirrorHostComponents & { directory: HostsDirectory };
  readonly #init: MirrorChainsInit;
  readonly #chains = new Map<string, MirrorChain>();
  readonly #hosts = new Map<string, MirrorHost>();
  readonly #endpoints = new Map<string, Shared>();
  readonly #retired = new Set<{ host: MirrorHost; timer: NodeJS.Timeout }>();
  #closed = false;

  constructor(components: MirrorHostComponents & { directory: HostsDirectory }, init: MirrorChainsInit) {
    this.#components = components;
    this.#init = init;
  }

  of(registry: string): MirrorChain | Promise<MirrorChain> {
    const from = this.#components.directory.of(registry);
    return from instanceof Promise ? from.then((hosts) => this.#chain(registry, hosts)) : this.#chain(registry, from);
  }

  registries(): readonly string[] {
    return [...this.#chains.keys()];
  }

  async close(): Promise<void> {
    this.#closed = true;
    const hosts = [...this.#hosts.values(), ...[...this.#retired].map(({ host }) => host)];
    for (const { timer } of this.#retired) clearTimeout(timer);
    for (const { endpoint } of this.#endpoints.values()) endpoint.close();
    this.#hosts.clear();
    this.#chains.clear();
    this.#retired.clear();
    this.#endpoints.clear();
    await Promise.all(hosts.map((host) => host.close()));
  }

  #chain(registry: string, from: RegistryHosts): MirrorChain {
    const known = this.#chains.get(registry);
    if (known?.from === from) return known;
    const chain = this.#closed ? this.#empty(registry, from) : this.#make(registry, from, known?.hosts ?? []);
    if (!this.#closed) this.#remember(registry, chain);
    return chain;
  }

  #remember(registry: string, chain: MirrorChain): void {
    this.#chains.delete(registry);
    this.#chains.set(registry, chain);
    const [oldest] = this.#chains;
    if (this.#chains.size <= MIRROR_LIMITS.maxRegistries || oldest === undefined) return;
    this.#chains.delete(oldest[0]);
    for (const host of oldest[1].hosts) this.#retire(host);
  }

  #empty(registry: string, from: RegistryHosts): MirrorChain {
    return { registry, hosts: [], origin: { pull: true, resolve: true }, from };
  }

  #make(registry: string, from: RegistryHosts, former: readonly MirrorHost[]): MirrorChain {
    const upstream = this.#upstream(registry);
    if (upstream === undefined) return this.#empty(registry, from);
    const { wanted, origin } = this.#wanted(upstream, from);
    const hosts = wanted.map((each) => this.#host(registry, each));
    for (const host of former) if (!hosts.includes(host)) this.#retire(host);
    return { registry, hosts, origin, from };
  }

  /** Where the registry itself is; undefined for one that must not be asked at all. */
  #upstream(registry: string): Upstream | undefined {
    try {
      return { registry, origin: this.#components.policy.registry(registry, '/v2/').url.origin };
    } catch {
      return undefined;
    }
  }

  #wanted(upstream: Upstream, from: RegistryHosts): { wanted: Wanted[]; origin: MirrorChain['origin'] } {
    const { proxy } = this.#init;
    const wanted = from.hosts.map((entry) => this.#entry(entry, upstream, from));
    if (proxy !== undefined) wanted.push(this.#proxy(proxy, upstream));
    let origin = { pull: true, resolve: true };
    const { server } = from;
    if (server !== undefined) {
      const own = isOwn(server, upstream);
      origin = own ? { pull: server.pull, resolve: server.resolve } : { pull: false, resolve: false };
      if (!own || isSpecial(server, upstream)) wanted.push(this.#entry(server, upstream, from));
    }
    if (proxy?.fallback === false) origin = { pull: false, resolve: false };
    return { wanted, origin };
  }

  #entry(entry: MirrorEntry, upstream: Upstream, { certificates }: RegistryHosts): Wanted {
    const { firstByteTimeoutMs, attemptTimeoutMs, dragonfly } = this.#init;
    const files = [...entry.ca, ...entry.client.flat()].map((path) => certificates.get(path ?? '') ?? '');
    return {
      key: hash('sha256', JSON.stringify([upstream, entry, files])),
      target: mirrorTarget(entry, upstream, dragonfly),
      pull: entry.pull,
      resolve: entry.resolve,
      connection: {
        firstByteTimeoutMs,
        attemptTimeoutMs,
        dialTimeoutMs: entry.dialTimeoutMs ?? MIRROR_LIMITS.dialTimeoutMs,
        tls: tlsOf(entry, certificates),
      },
      failureLimit: entry.failureLimit,
      checkIntervalMs: entry.healthCheckIntervalMs,
    };
  }

  #proxy(proxy: ProxyInit, upstream: Upstream): Wanted {
    const { firstByteTimeoutMs, attemptTimeoutMs, dragonfly } = this.#init;
    return {
      key: JSON.stringify(['proxy', upstream]),
      target: proxyTarget(proxy, upstream, dragonfly),
      pull: true,
      resolve: true,
      connection: { firstByteTimeoutMs, attemptTimeoutMs, dialTimeoutMs: MIRROR_LIMITS.dialTimeoutMs, tls: {} },
      failureLimit: undefined,
      checkIntervalMs: proxy.checkIntervalMs,
    };
  }

  #host(registry: string, wanted: Wanted): MirrorHost {
    const known = this.#hosts.get(wanted.key);
    if (known !== undefined) return known;
    const host = createMirrorHost({ ...this.#components, ...this.#endpoint(wanted) }, { ...wanted, registry });
    this.#hosts.set(wanted.key, host);
    return host;
  }

  /** One per mirror, not per registry: a dead one is found dead once. */
  #endpoint({ target, connection, failureLimit, checkIntervalMs }: Wanted): Shared {
    const key = JSON.stringify([target.name, target.kind, target.pingUrl, failureLimit, checkIntervalMs]);
    let shared = this.#endpoints.get(key);
    if (shared === undefined) {
      const { clock, log, policy } = this.#components;
      const ping = (signal: AbortSignal): Promise<boolean> => pingMirror({ policy }, { target, connection, signal });
      shared = {
        endpoint: createEndpoint({ clock, log, ping }, { name: target.name, failureLimit, checkIntervalMs }),
        pieces: createPieceCache({ pieces: MIRROR_LIMITS.keptPieces, keptMs: MIRROR_LIMITS.keptPiecesMs }),
      };
      this.#endpoints.set(key, shared);
    }
    return shared;
  }

  /** No longer in any file: what is under way may end. */
  #retire(host: MirrorHost): void {
    for (const [key, each] of this.#hosts) if (each === host) this.#hosts.delete(key);
    const entry = {
      host,
      timer: setTimeout(() => {
        this.#retired.delete(entry);
        void host.close();
      }, MIRROR_LIMITS.retireMs),
    };
    entry.timer.unref();
    this.#retired.add(entry);
  }
}

function isOwn(server: MirrorEntry, { registry, origin }: Upstream): boolean {
  const { host } = new URL(server.origin);
  return host === new URL(origin).host || (HUB.has(registry) && HUB.has(host));
}

/** The file says something of the registry itself that its own client does not know. */
function isSpecial(server: MirrorEntry, { registry, origin }: Upstream): boolean {
  const { ca, client, headers, path, skipVerify } = server;
  const sameUrl = path === '/v2' && (server.origin === origin || HUB.has(registry));
  return !sameUrl || skipVerify || ca.length + client.length + headers.length > 0;
}
