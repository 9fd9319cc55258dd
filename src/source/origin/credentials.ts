import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { ShoalError } from '../../errors.ts';
import { Secret } from './secret.ts';

/** What proves to a registry who we are: user name and password, or a refresh token of its token server. */
export type Credential =
  | { readonly kind: 'basic'; readonly username: string; readonly password: Secret }
  | { readonly kind: 'identity-token'; readonly token: Secret };

/** Where credentials come from. Sources are asked in order; one that has none says undefined. */
export interface CredentialSource {
  /** Credentials for a registry (as references name it: `docker.io`) and a repository of it. */
  find(registry: string, repository: string, options: { signal: AbortSignal }): Promise<Credential | undefined>;
}

/** Credentials of the configuration file, by registry host. */
export type StaticCredentials = Readonly<
  Record<string, { readonly username: string; readonly password: string } | { readonly identityToken: string }>
>;

const MAX_CONFIG_BYTES = 1024 * 1024;
const MAX_HELPER_BYTES = 64 * 1024;
/** Helpers may ask a key ring or a cloud's metadata service; docker's own have no limit. */
const HELPER_TIMEOUT_MS = 10_000;
const HELPER_NAME = /^[a-z0-9-]{1,64}$/;
/** Helpers and config files know Docker Hub by its old index. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';
const DOCKER_HUB_HOSTS = new Set(['docker.io', 'index.docker.io', 'registry-1.docker.io']);

/** Asks the sources in order; the first that has credentials wins. */
export function chainCredentials(sources: readonly CredentialSource[]): CredentialSource {
  return {
    async find(registry, repository, options) {
      for (const source of sources) {
        const found = await source.find(registry, repository, options);
        if (found !== undefined) return found;
      }
      return undefined;
    },
  };
}

/** Credentials given by name; an empty object is anonymous access. */
export function createStaticCredentials(entries: StaticCredentials): CredentialSource {
  const byHost = new Map(Object.entries(entries).map(([host, entry]) => [canonicalHost(host), entry]));
  return {
    async find(registry) {
      const entry = byHost.get(canonicalHost(registry));
      if (entry === undefined) return undefined;
      if ('identityToken' in entry) return { kind: 'identity-token', token: new Secret(entry.identityToken) };
      return basic(entry.username, entry.password);
    },
  };
}

/**
 * Credentials as `docker login` keeps them: `path` is a docker `config.json` with `auths`, `credHelpers` and
 * `credsStore`. Read anew each time, so a rotated file counts at once. A file that is not there has no credentials;
 * one that is broken, or a helper that fails, throws CONFIG_INVALID.
 */
export function createDockerCredentials(init: {
  path: string;
  helperTimeoutMs?: number;
  /** Runs a helper with this name; default: the program `docker-credential-<name>` on the search path. */
  runHelper?: HelperRunner;
}): CredentialSource {
  const runHelper =
    init.runHelper ?? ((name, server, signal) => spawnHelper(name, server, signal, init.helperTimeoutMs));
  return {
    async find(registry, _repository, { signal }) {
      const config = await readConfig(init.path, signal);
      if (config === undefined) return undefined;
      const server = DOCKER_HUB_HOSTS.has(registry) ? DOCKER_HUB_KEY : registry;
      const helper = helperFor(config, registry);
      if (helper !== undefined) {
        const found = parseHelperOutput(await runHelper(helper, server, signal), helper);
        if (found !== undefined) return found;
      }
      return fromAuths(config, registry);
    },
  };
}

/** Gives what `docker-credential-<name> get` prints for a server; undefined when it knows none. */
export type HelperRunner = (name: string, server: string, signal: AbortSignal) => Promise<string | undefined>;

type Json = Readonly<Record<string, unknown>>;

async function readConfig(path: string, signal: AbortSignal): Promise<Json | undefined> {
  let text: string;
  try {
    text = await readFile(path, { encoding: 'utf8', signal });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    if (signal.aborted) throw signal.reason;
    throw new ShoalError('CONFIG_INVALID', `cannot read ${path}`, { cause });
  }
  if (text.length > MAX_CONFIG_BYTES) throw new ShoalError('CONFIG_INVALID', `${path} is larger than 1 MiB`);
  // JSON.parse quotes the text in its message, and the text holds passwords: no cause.
  const config = parseJson(text);
  if (config === undefined) throw new ShoalError('CONFIG_INVALID', `${path} is not a JSON object`);
  return config;
}

function helperFor(config: Json, registry: string): string | undefined {
  const helpers = isObject(config.credHelpers) ? config.credHelpers : {};
  const own = Object.entries(helpers).find(([key]) => canonicalHost(key) === canonicalHost(registry))?.[1];
  const name = own ?? config.credsStore;
  if (name === undefined || name === '') return undefined;
  if (typeof name !== 'string' || !HELPER_NAME.test(name)) {
    throw new ShoalError('CONFIG_INVALID', `credential helper for ${registry} is not named with a-z, 0-9 and "-" only`);
  }
  return name;
}

function fromAuths(config: Json, registry: string): Credential | undefined {
  const auths = isObject(config.auths) ? config.auths : {};
  const wanted = canonicalHost(registry);
  // An exact key wins over one that only means the same host.
  const keys = Object.keys(auths).sort((a, b) => Number(b === registry) - Number(a === registry));
  for (const key of keys) {
    const entry = auths[key];
    if (canonicalHost(key) !== wanted || !isObject(entry)) continue;
    const { identitytoken, auth, username, password } = entry;
    if (typeof identitytoken === 'string' && identitytoken !== '') {
      return { kind: 'identity-token', token: new Secret(identitytoken) };
    }
    if (typeof auth === 'string' && auth !== '') return decodeAuth(auth, key);
    if (typeof username === 'string' && typeof password === 'string' && username !== '')
      return basic(username, password);
  }
  return undefined;
}

function decodeAuth(auth: string, key: string): Credential {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 1) throw new ShoalError('CONFIG_INVALID', `"auth" of ${key} is not base64 of user:password`);
  // docker pads with NUL bytes, and strips them when it reads.
  return basic(text.slice(0, colon), text.slice(colon + 1).replace(/\0+$/, ''));
}

function parseHelperOutput(output: string | undefined, helper: string): Credential | undefined {
  if (output === undefined) return undefined;
  const answer = parseJson(output);
  const { Username: username, Secret: secret } = answer ?? {};
  if (typeof username !== 'string' || typeof secret !== 'string') {
    throw new ShoalError('CONFIG_INVALID', `docker-credential-${helper} did not print {"Username", "Secret"}`);
  }
  if (username === '' || secret === '') return undefined;
  return username === '<token>' ? { kind: 'identity-token', token: new Secret(secret) } : basic(username, secret);
}

/** The docker credential helper protocol: server on stdin, JSON on stdout, exit 1 with a fixed text for "not found". */
function spawnHelper(
  name: string,
  server: string,
  signal: AbortSignal,
  timeoutMs = HELPER_TIMEOUT_MS,
): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: unknown): void =>
      reject(new ShoalError('CONFIG_INVALID', `docker-credential-${name} ${why}`, { cause }));
    const child = spawn(`docker-credential-${name}`, ['get'], {
      stdio: ['pipe', 'pipe', 'ignore'],
      killSignal: 'SIGKILL',
    });
    let output = '';
    const stop = (why: string): void => {
      child.kill('SIGKILL');
      // A grandchild may keep the pipe open; nobody reads it any more.
      child.stdout.destroy();
      fail(why);
    };
    const timer = setTimeout(() => stop(`did not answer within ${timeoutMs} ms`), timeoutMs);
    const onAbort = (): void => stop('was cancelled');
    signal.addEventListener('abort', onAbort, { once: true });
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      if (output.length > MAX_HELPER_BYTES) stop('prints too much');
    });
    child.stdin.on('error', () => {}); // It may exit without reading.
    child.stdin.end(`${server}\n`);
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    };
    child.once('error', (cause) => {
      done();
      fail('could not be run', cause);
    });
    child.once('close', (code) => {
      done();
      if (code === 0) resolve(output);
      else if (/credentials not found/i.test(output)) resolve(undefined);
      else fail(`exited with ${code}`);
    });
  });
}

/** Host of a config key such as `https://index.docker.io/v1/` or `quay.io`, one name for all of Docker Hub's. */
function canonicalHost(key: string): string {
  const host = key
    .replace(/^https?:\/\//i, '')
    .replace(/\/.*$/s, '')
    .toLowerCase();
  return DOCKER_HUB_HOSTS.has(host) ? 'docker.io' : host;
}

function basic(username: string, password: string): Credential {
  return { kind: 'basic', username, password: new Secret(password) };
}

function parseJson(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
