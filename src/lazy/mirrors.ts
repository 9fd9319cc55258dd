import { readdir } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import type { Config } from '../config.ts';
import type { MirrorsReport } from '../control/mirrors-report.ts';
import type { ControlRoute } from '../control/server.ts';
import { hasCode } from '../errors.ts';
import { parseReference, type Reference } from '../image/reference.ts';
import type { Logger } from '../log.ts';
import { createMirrorChains, type MirrorChain, type MirrorChains } from '../source/mirror/chains.ts';
import { createHostsDirectory, NO_DIRECTORY } from '../source/mirror/hosts-directory.ts';
import type { MirrorBlobs, MirrorHost } from '../source/mirror/mirror-host.ts';
import type { PullToken } from '../source/mirror/mirror-policy.ts';
import type { ProxyInit } from '../source/mirror/target.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { SourceCounters } from '../store/count.ts';
import type { ImageRecords } from './images.ts';
import type { BlobOpener } from './layer-opener.ts';
import { windowsOf } from './layer-windows.ts';
import { createConfiguredPolicy } from './registry.ts';

/** The mirrors a configuration asks for. */
export interface ConfiguredMirrors {
  readonly chains: MirrorChains;
  /** What mirrors need to know of this node's blobs. */
  readonly blobs: MirrorBlobs;
  /** The opener, for images whose registry has mirrors. */
  past(opener: BlobOpener): (reference: Reference) => Promise<BlobOpener | undefined>;
  /** Compressed bytes that came from mirrors. */
  fetchedBytes(): number;
  /** What `shoal mirrors` asks. */
  route(images: Pick<ImageRecords, 'list'>): ControlRoute;
}

export function createConfiguredMirrors(
  config: Pick<Config, 'mirrors' | 'dragonfly' | 'proxy' | 'fetch' | 'registry'>,
  components: {
    clock: Clock;
    log: Logger;
    blobs: BlobStore;
    direct: Pick<RegistryClient, 'pullToken'>;
    /** The source's name is what spare chunks are counted under. */
    counters: Pick<SourceCounters, 'name'>;
  },
): ConfiguredMirrors {
  const { enabled, configPath, firstByteTimeoutMs, attemptTimeoutMs } = config.mirrors;
  const directory = enabled ? createHostsDirectory(components, { path: configPath }) : NO_DIRECTORY;
  const blobs: MirrorBlobs = {
    table: (blob) => components.blobs.opened(blob)?.table,
    find(blob) {
      const info = components.blobs.opened(blob)?.info;
      if (info === undefined) return undefined;
      const { size, sources, remote } = info;
      return { size, sources: sources.toReversed(), ...(remote === undefined ? {} : { remote }) };
    },
    window: windowsOf(components.blobs),
    onExtent: async ({ blob, index }, decoded) =>
      await components.blobs.opened(blob)?.offerExtent(index, decoded, components.counters.name),
  };
  const pullToken: PullToken = (registry, repository) => components.direct.pullToken({ registry, repository });
  let fetchedBytes = 0;
  const chains = createMirrorChains(
    {
      ...components,
      blobs,
      directory,
      policy: createConfiguredPolicy(config),
      pullToken: config.mirrors.pullTokens ? pullToken : undefined,
      onFetched: (bytes) => {
        fetchedBytes += bytes;
      },
    },
    { firstByteTimeoutMs, attemptTimeoutMs, dragonfly: config.dragonfly, proxy: proxyInit(config.proxy) },
  );
  return {
    chains,
    blobs,
    past: (opener) => async (reference) => {
      const { hosts } = await chains.of(reference.registry);
      return hosts.length === 0 ? undefined : opener;
    },
    fetchedBytes: () => fetchedBytes,
    route: (images) => ({
      method: 'GET',
      path: '/v1/mirrors',
      async handle(): Promise<MirrorsReport> {
        const names = new Set(chains.registries().filter((name) => name !== OTHERS));
        for (const { reference } of images.list()) addRegistry(names, reference);
        if (enabled) for (const registry of await listed(configPath)) names.add(registry);
        const report = await Promise.all([...names].sort().map(async (name) => chainReport(await chains.of(name))));
        const others = enabled ? chainReport(await chains.of(OTHERS)) : undefined;
        if (others?.file !== undefined) report.push({ ...others, registry: '_default' });
        return { enabled, configPath, registries: report };
      },
    }),
  };
}

function proxyInit(proxy: Config['proxy']): ProxyInit | undefined {
  const { url, pingUrl, checkIntervalMs, fallback, useHttp } = proxy;
  return url === undefined ? undefined : { url, pingUrl, checkIntervalMs, fallback, useHttp };
}

/** Registries with a folder of their own: `host_port_` and `host`. */
async function listed(path: string): Promise<string[]> {
  const names = await readdir(path).catch(() => []);
  return names
    .slice(0, MAX_LISTED)
    .filter((name) => name !== '_default')
    .map((name) => name.replace(/_(\d+)_$/, ':$1'))
    .filter((name) => registryOf(`${name}/x`) === name);
}

/** Stands for every registry without a folder of its own, so that `_default` shows before one is asked for. */
const OTHERS = 'every-other.invalid';
/** Folders shown; more than any site has. */
const MAX_LISTED = 200;

function addRegistry(names: Set<string>, reference: string): void {
  const registry = registryOf(reference);
  if (registry !== undefined) names.add(registry);
}

function registryOf(reference: string): string | undefined {
  try {
    return parseReference(reference).registry;
  } catch (error) {
    if (hasCode(error, 'INVALID_REFERENCE')) return undefined;
    throw error;
  }
}

function chainReport({ registry, hosts, origin, from }: MirrorChain): MirrorsReport['registries'][number] {
  return {
    registry,
    ...(from.file === undefined ? {} : { file: from.file }),
    ...(from.error === undefined ? {} : { error: from.error }),
    warnings: from.warnings,
    mirrors: hosts.map(hostReport),
    origin: origin.pull || origin.resolve,
  };
}

function hostReport(host: MirrorHost): MirrorsReport['registries'][number]['mirrors'][number] {
  const { target, endpoint } = host;
  const { requests, failures, lastError } = endpoint.counters;
  const state = endpoint.breaker.state();
  return {
    url: target.name,
    kind: target.kind,
    capabilities: [...(host.pull ? ['pull'] : []), ...(host.resolve ? ['resolve'] : [])],
    health: state === 'closed' ? 'ok' : state === 'open' ? 'resting' : 'on trial',
    requests,
    failures,
    bytes: host.bytes(),
    ...(lastError === undefined ? {} : { lastError }),
  };
}
