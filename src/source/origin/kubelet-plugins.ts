import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import { basicCredential, type Credential, type CredentialSource, type FindOptions } from './credentials.ts';
import { isObject, parseJson } from './docker-config.ts';
import { type KubeletProvider, parseGoDuration } from './kubelet-config.ts';
import { matchesImage, matchingKeys } from './kubelet-match.ts';
import { type ProgramCall, type ProgramResult, runProgram } from './run-program.ts';

interface Cached {
  readonly auths: ReadonlyMap<string, Credential>;
  readonly untilMs: number;
}

/** Kubelet's own limit for one run of a plugin. */
const PLUGIN_TIMEOUT_MS = 60_000;
/** Answers kept per plugin; with cacheKeyType Image each image is one. */
const MAX_CACHED = 1_024;

/**
 * Kubelet's credential-provider plugins (credentialprovider.kubelet.k8s.io): each provider whose `matchImages` match is
 * run with the image on standard input; its answer is kept as long as it says (`cacheDuration`), else as long as the
 * configuration says. An answer the registry refused is asked for anew. Throws CONFIG_INVALID when a plugin fails.
 */
export function createKubeletPlugins(
  components: { readonly clock: Clock; readonly run?: (call: ProgramCall) => Promise<ProgramResult> },
  init: { readonly providers: readonly KubeletProvider[]; readonly binDir: string },
): CredentialSource {
  const plugins = init.providers.map((provider) => new Plugin(provider, init.binDir, components));
  return {
    name: 'kubelet plugins',
    async find(registry, repository, options) {
      const image = `${registry}/${repository}`;
      const found: Credential[] = [];
      for (const plugin of plugins) found.push(...(await plugin.find(registry, image, options)));
      return found;
    },
  };
}

class Plugin {
  readonly #provider: KubeletProvider;
  readonly #command: string;
  readonly #clock: Clock;
  readonly #run: (call: ProgramCall) => Promise<ProgramResult>;
  readonly #cached = new Map<string, Cached>();
  /** Runs under way, by image. */
  readonly #running = new Map<string, Promise<ReadonlyMap<string, Credential>>>();

  constructor(
    provider: KubeletProvider,
    binDir: string,
    components: { readonly clock: Clock; readonly run?: (call: ProgramCall) => Promise<ProgramResult> },
  ) {
    this.#provider = provider;
    this.#command = `${binDir}/${provider.name}`;
    this.#clock = components.clock;
    this.#run = components.run ?? runProgram;
  }

  async find(registry: string, image: string, options: FindOptions): Promise<Credential[]> {
    if (!this.#provider.matchImages.some((pattern) => matchesImage(pattern, image))) return [];
    const kept = select(this.#kept(registry, image), image);
    const { refused } = options;
    const isUsable = kept.length > 0 && !(refused !== undefined && kept.every((credential) => refused(credential)));
    if (isUsable) return kept;
    let running = this.#running.get(image);
    if (running === undefined) {
      running = this.#ask(registry, image, options.signal).finally(() => this.#running.delete(image));
      this.#running.set(image, running);
    }
    return select(await running, image);
  }

  /** What an earlier run said of this image, its registry, or everything. */
  #kept(registry: string, image: string): ReadonlyMap<string, Credential> {
    for (const key of [`image ${image}`, `registry ${registry}`, 'global']) {
      const cached = this.#cached.get(key);
      if (cached === undefined) continue;
      if (this.#clock.nowMs() < cached.untilMs) return cached.auths;
      this.#cached.delete(key);
    }
    return new Map();
  }

  async #ask(registry: string, image: string, signal: AbortSignal): Promise<ReadonlyMap<string, Credential>> {
    const { apiVersion, args, env, name } = this.#provider;
    const { code, output } = await this.#run({
      command: this.#command,
      args,
      env,
      input: `${JSON.stringify({ apiVersion, kind: 'CredentialProviderRequest', image })}\n`,
      timeoutMs: PLUGIN_TIMEOUT_MS,
      signal,
    });
    if (code !== 0) throw new ShoalError('CONFIG_INVALID', `kubelet plugin ${name} exited with ${code}`);
    const { auths, keyType, lifetimeMs } = parseResponse(output, this.#provider);
    if (lifetimeMs > 0) {
      const key = keyType === 'Image' ? `image ${image}` : keyType === 'Registry' ? `registry ${registry}` : 'global';
      this.#cached.delete(key);
      this.#cached.set(key, { auths, untilMs: this.#clock.nowMs() + lifetimeMs });
      const oldest = this.#cached.keys().next().value;
      if (this.#cached.size > MAX_CACHED && oldest !== undefined) this.#cached.delete(oldest);
    }
    return auths;
  }
}

function select(auths: ReadonlyMap<string, Credential>, image: string): Credential[] {
  return matchingKeys([...auths.keys()], image).map((key) => auths.get(key) as Credential);
}

/** A CredentialProviderResponse. Throws CONFIG_INVALID that shows none of it. */
function parseResponse(output: string, { name, apiVersion, defaultCacheDurationMs }: KubeletProvider) {
  const refuse = (why: string): ShoalError => new ShoalError('CONFIG_INVALID', `kubelet plugin ${name} ${why}`);
  const answer = parseJson(output);
  if (answer?.kind !== 'CredentialProviderResponse') throw refuse('did not print a CredentialProviderResponse');
  if (answer.apiVersion !== apiVersion) throw refuse(`answers with another apiVersion than ${apiVersion}`);
  const { cacheKeyType: keyType, cacheDuration, auth } = answer;
  if (keyType !== 'Image' && keyType !== 'Registry' && keyType !== 'Global') {
    throw refuse('answers with a cacheKeyType that is not Image, Registry or Global');
  }
  const lifetimeMs = typeof cacheDuration === 'string' ? parseGoDuration(cacheDuration) : defaultCacheDurationMs;
  if (lifetimeMs === undefined) throw refuse('answers with a cacheDuration that is none');
  const auths = new Map<string, Credential>();
  for (const [key, entry] of Object.entries(isObject(auth) ? auth : {})) {
    const { username, password } = isObject(entry) ? entry : {};
    if (typeof username === 'string' && typeof password === 'string')
      auths.set(key, basicCredential(username, password));
  }
  return { auths, keyType, lifetimeMs };
}
