import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { ShoalError } from '../../errors.ts';
import { isObject } from './docker-config.ts';

/** One provider of kubelet's CredentialProviderConfig. */
export interface KubeletProvider {
  /** File name of the plugin within the folder of plugins. */
  readonly name: string;
  readonly matchImages: readonly string[];
  readonly defaultCacheDurationMs: number;
  /** Of the requests: `credentialprovider.kubelet.k8s.io/v1`. */
  readonly apiVersion: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

const MAX_FILE_BYTES = 1024 * 1024;
const CONFIG_VERSION = /^kubelet\.config\.k8s\.io\/v1(alpha1|beta1)?$/;
const REQUEST_VERSION = /^credentialprovider\.kubelet\.k8s\.io\/v1(alpha1|beta1)?$/;

/** Reads the file kubelet is given as `--image-credential-provider-config`. Throws CONFIG_INVALID naming file and key. */
export function readKubeletProviders(path: string): KubeletProvider[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ShoalError('CONFIG_INVALID', `cannot read ${path} (${(cause as NodeJS.ErrnoException).code})`, { cause });
  }
  return parseKubeletProviders(text, path);
}

/** Parses a CredentialProviderConfig (YAML or JSON). Throws CONFIG_INVALID naming `name` and the key. */
export function parseKubeletProviders(text: string, name: string): KubeletProvider[] {
  const refuse = (why: string): ShoalError => new ShoalError('CONFIG_INVALID', `${name}: ${why}`);
  if (text.length > MAX_FILE_BYTES) throw refuse('larger than 1 MiB');
  let config: unknown;
  try {
    config = parse(text, { logLevel: 'error' });
  } catch {
    // The parser's message quotes the file, and `env` may hold secrets.
    throw refuse('not YAML');
  }
  if (!isObject(config) || config.kind !== 'CredentialProviderConfig')
    throw refuse('kind is not CredentialProviderConfig');
  if (!CONFIG_VERSION.test(String(config.apiVersion))) throw refuse('apiVersion is not kubelet.config.k8s.io/v1');
  if (!Array.isArray(config.providers)) throw refuse('providers is not a list');
  return config.providers.map((entry: unknown, index) =>
    parseProvider(entry, (why) => refuse(`providers[${index}]${why}`)),
  );
}

function parseProvider(entry: unknown, refuse: (why: string) => ShoalError): KubeletProvider {
  const provider = isObject(entry) ? entry : {};
  const { name, matchImages, defaultCacheDuration, apiVersion, args = [], env = [] } = provider;
  if (typeof name !== 'string' || name === '' || name === '.' || name === '..' || /[/\s\0]/.test(name)) {
    throw refuse('.name is not the file name of a plugin');
  }
  if (!isTexts(matchImages) || matchImages.length === 0) throw refuse('.matchImages is not a list of patterns');
  if (typeof apiVersion !== 'string' || !REQUEST_VERSION.test(apiVersion)) {
    throw refuse('.apiVersion is not credentialprovider.kubelet.k8s.io/v1');
  }
  const defaultCacheDurationMs =
    typeof defaultCacheDuration === 'string' ? parseGoDuration(defaultCacheDuration) : undefined;
  if (defaultCacheDurationMs === undefined) throw refuse('.defaultCacheDuration is not a duration such as 10m');
  if (!isTexts(args)) throw refuse('.args is not a list of texts');
  const pairs = (Array.isArray(env) ? env : [undefined]).map((pair: unknown): [string, string] => {
    if (!isObject(pair) || typeof pair.name !== 'string' || typeof pair.value !== 'string') {
      throw refuse('.env is not a list of name and value');
    }
    return [pair.name, pair.value];
  });
  return { name, matchImages, defaultCacheDurationMs, apiVersion, args, env: Object.fromEntries(pairs) };
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

const UNIT_MS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
};

/** Milliseconds of a duration as Go writes it (`1h30m`, `0h5m0s`, `0`); undefined for anything else. */
export function parseGoDuration(text: string): number | undefined {
  if (text === '0') return 0;
  if (text.length > 64 || !/^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$/.test(text)) return undefined;
  let ms = 0;
  for (const [, value, , unit] of text.matchAll(/(\d+(\.\d+)?)(ns|us|µs|ms|s|m|h)/g)) {
    ms += Number(value) * (UNIT_MS[unit as string] as number);
  }
  return ms;
}
