import { readFileSync } from 'node:fs';
import type { Clock } from '../clock.ts';
import type { Config } from '../config.ts';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import {
  type CredentialSource,
  chainCredentials,
  createDockerCredentials,
  createStaticCredentials,
} from '../source/origin/credentials.ts';
import {
  createRegistryClient,
  type RegistryClient,
  type RegistryClientComponents,
  type RegistryClientInit,
} from '../source/origin/registry-client.ts';
import { createRegistryPusher, type RegistryPusher } from '../source/origin/registry-pusher.ts';
import { createUrlPolicy, type RegistryRules } from '../source/url-policy.ts';

/** The registry client a configuration asks for. Throws CONFIG_INVALID when a file it names cannot be read. */
export function createConfiguredRegistry(
  config: Pick<Config, 'fetch' | 'auth' | 'registry'>,
  components: { log: Logger; clock: Clock },
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
  components: { log: Logger; clock: Clock },
): [RegistryClientComponents, RegistryClientInit] {
  const { fetch } = config;
  const policy = createUrlPolicy({ registries: rules(config.registry), onlyConfigured: fetch.onlyConfigured });
  return [
    { ...components, policy, credentials: credentialSources(config) },
    {
      connections: fetch.connectionsPerRegistry,
      connectTimeoutMs: fetch.connectTimeoutMs,
      headersTimeoutMs: fetch.stallTimeoutMs,
      stallTimeoutMs: fetch.stallTimeoutMs,
      attempts: fetch.attempts,
      ...(fetch.ca === undefined ? {} : { ca: readNamedFile(fetch.ca, 'fetch.ca') }),
    },
  ];
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

function credentialSources(config: Pick<Config, 'auth' | 'registry'>): CredentialSource {
  const configured: Record<string, { username: string; password: string }> = {};
  for (const [host, { username, passwordFile }] of Object.entries(config.registry)) {
    if (username === undefined || passwordFile === undefined) continue;
    const password = readNamedFile(passwordFile, `registry."${host}".password_file`).replace(/\r?\n$/, '');
    configured[host] = { username, password };
  }
  const { dockerConfig } = config.auth;
  const docker = dockerConfig === undefined ? [] : [createDockerCredentials({ path: dockerConfig })];
  return chainCredentials([createStaticCredentials(configured), ...docker]);
}

function readNamedFile(path: string, key: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new ShoalError('CONFIG_INVALID', `${key}: cannot read ${path} (${why})`, { cause });
  }
}
