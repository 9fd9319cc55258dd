import { readFileSync } from 'node:fs';
import type { Clock } from '../clock.ts';
import type { Config } from '../config.ts';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { AskedRegistries } from '../source/asked-registries.ts';
import { createStaticCredentials } from '../source/origin/config-credentials.ts';
import { type CredentialSource, chainCredentials } from '../source/origin/credentials.ts';
import { createDockerCredentials } from '../source/origin/docker-credentials.ts';
import { readKubeletProviders } from '../source/origin/kubelet-config.ts';
import { createKubeletPlugins } from '../source/origin/kubelet-plugins.ts';
import { createKubernetesSecrets } from '../source/origin/kubernetes-secrets.ts';
import {
  createRegistryClient,
  type RegistryClient,
  type RegistryClientComponents,
  type RegistryClientInit,
} from '../source/origin/registry-client.ts';
import { createRegistryPusher, type RegistryPusher } from '../source/origin/registry-pusher.ts';
import { createUrlPolicy, type RegistryRules, type UrlPolicy } from '../source/url-policy.ts';

/**
 * The registry client a configuration asks for; `given` are credentials that come before all configured ones, `asked`
 * the registries that may be asked besides the configured ones (not given: all). Throws CONFIG_INVALID when a file it names cannot be read.
 */
export function createConfiguredRegistry(
  config: Pick<Config, 'fetch' | 'auth' | 'registry'>,
  components: { log: Logger; clock: Clock; given?: readonly CredentialSource[]; asked?: AskedRegistries },
): RegistryClient {
  return createRegistryClient(...parts(config, components));
}

/** The same for writing. */
export function createConfiguredPusher(
  config: Pick<Config, 'fetch' | 'auth' | 'registry'>,
  components: { log: Logger; clock: Clock },
): RegistryPusher {
  return createRegistryPusher(...parts(config, components));
}

function parts(
  config: Pick<Config, 'fetch' | 'auth' | 'registry'>,
  components: { log: Logger; clock: Clock; given?: readonly CredentialSource[]; asked?: AskedRegistries },
): [RegistryClientComponents, RegistryClientInit] {
  const { fetch } = config;
  const policy = createConfiguredPolicy(config, components.asked);
  const credentials = chainCredentials(credentialSources(config, components.clock, components.given ?? []), components);
  return [
    { ...components, policy, credentials },
    {
      connections: fetch.connectionsPerRegistry,
      connectTimeoutMs: fetch.connectTimeoutMs,
      headersTimeoutMs: fetch.stallTimeoutMs,
      stallTimeoutMs: fetch.stallTimeoutMs,
      attempts: fetch.attempts,
      retryBudgetMs: fetch.retryBudgetMs,
      ...(fetch.ca === undefined ? {} : { ca: readNamedFile(fetch.ca, 'fetch.ca') }),
    },
  ];
}

/** The URL policy a configuration asks for; `asked` as above. */
export function createConfiguredPolicy(config: Pick<Config, 'fetch' | 'registry'>, asked?: AskedRegistries): UrlPolicy {
  return createUrlPolicy({
    registries: rules(config.registry),
    onlyConfigured: config.fetch.onlyConfigured,
    ...(asked === undefined ? {} : { isAsked: (registry) => asked.has(registry) }),
  });
}

function rules(registries: Config['registry']): Record<string, RegistryRules> {
  return Object.fromEntries(
    Object.entries(registries).map(([host, section]) => [
      host,
      {
        allowPrivate: section.allowPrivate,
        tokenHosts: section.tokenHosts,
        ...(section.plainHttp === undefined ? {} : { plainHttp: section.plainHttp }),
      },
    ]),
  );
}

/** Where credentials come from, in the order they are tried. */
function credentialSources(
  config: Pick<Config, 'auth' | 'registry'>,
  clock: Clock,
  given: readonly CredentialSource[],
): CredentialSource[] {
  const { dockerConfig, kubeletProviderConfig, kubeletProviderDir, kubernetesSecrets } = config.auth;
  const sources = [...given];
  if (dockerConfig !== undefined) sources.push(createDockerCredentials({ path: dockerConfig }));
  if (kubeletProviderConfig !== undefined && kubeletProviderDir !== undefined) {
    const providers = readKubeletProviders(kubeletProviderConfig);
    sources.push(createKubeletPlugins({ clock }, { providers, binDir: kubeletProviderDir }));
  }
  if (kubernetesSecrets !== undefined) sources.push(createKubernetesSecrets({ path: kubernetesSecrets }));
  const configured: Record<string, { username: string; passwordFile: string }> = {};
  for (const [host, { username, passwordFile }] of Object.entries(config.registry)) {
    if (username !== undefined && passwordFile !== undefined) configured[host] = { username, passwordFile };
  }
  sources.push(createStaticCredentials(configured));
  return sources;
}

function readNamedFile(path: string, key: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new ShoalError('CONFIG_INVALID', `${key}: cannot read ${path} (${why})`, { cause });
  }
}
