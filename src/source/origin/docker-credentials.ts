import { ShoalError } from '../../errors.ts';
import { basicCredential, type Credential, type CredentialSource, canonicalHost } from './credentials.ts';
import { authEntry, isObject, type Json, parseJson, readSecretJson } from './docker-config.ts';
import { runProgram } from './run-program.ts';
import { Secret } from './secret.ts';

/** Helpers may ask a key ring or a cloud's metadata service; docker's own have no limit. */
const HELPER_TIMEOUT_MS = 10_000;
const HELPER_NAME = /^[a-z0-9-]{1,64}$/;
/** Helpers and config files know Docker Hub by its old index. */
const DOCKER_HUB_KEY = 'https://index.docker.io/v1/';

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
  const runHelper = init.runHelper ?? ((...call) => runHelperProgram(...call, init.helperTimeoutMs));
  return {
    name: 'docker config',
    async find(registry, _repository, { signal }) {
      const config = await readSecretJson(init.path, signal);
      if (config === undefined) return [];
      const server = canonicalHost(registry) === 'docker.io' ? DOCKER_HUB_KEY : registry;
      const helper = helperFor(config, registry);
      if (helper !== undefined) {
        const found = parseHelperOutput(await runHelper(helper, server, signal), helper);
        if (found !== undefined) return [found];
      }
      const found = fromAuths(config, registry);
      return found === undefined ? [] : [found];
    },
  };
}

/** Gives what `docker-credential-<name> get` prints for a server; undefined when it knows none. */
export type HelperRunner = (name: string, server: string, signal: AbortSignal) => Promise<string | undefined>;

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
    const found = canonicalHost(key) === wanted ? authEntry(auths[key], key) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

function parseHelperOutput(output: string | undefined, helper: string): Credential | undefined {
  if (output === undefined) return undefined;
  const answer = parseJson(output);
  const { Username: username, Secret: secret } = answer ?? {};
  if (typeof username !== 'string' || typeof secret !== 'string') {
    throw new ShoalError('CONFIG_INVALID', `docker-credential-${helper} did not print {"Username", "Secret"}`);
  }
  if (username === '' || secret === '') return undefined;
  return username === '<token>'
    ? { kind: 'identity-token', token: new Secret(secret) }
    : basicCredential(username, secret);
}

/** The docker credential helper protocol: server on stdin, JSON on stdout, exit 1 with a fixed text for "not found". */
async function runHelperProgram(
  name: string,
  server: string,
  signal: AbortSignal,
  timeoutMs = HELPER_TIMEOUT_MS,
): Promise<string | undefined> {
  const command = `docker-credential-${name}`;
  const { code, output } = await runProgram({ command, args: ['get'], input: `${server}\n`, timeoutMs, signal });
  if (code === 0) return output;
  if (/credentials not found/i.test(output)) return undefined;
  throw new ShoalError('CONFIG_INVALID', `${command} exited with ${code}`);
}
