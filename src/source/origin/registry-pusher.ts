import { type Digest, parseDigest, sha256 } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { MANIFEST_LIMITS } from '../../image/manifest.ts';
import type { UrlPolicy } from '../url-policy.ts';
import { REGISTRY_LIMITS } from './limits.ts';
import type { RegistryClientComponents, RegistryClientInit, Repository } from './registry-client.ts';
import { withRetries } from './retry.ts';
import { RegistrySession, type SessionRequest } from './session.ts';
import { createTokenSource, type TokenSource } from './token.ts';
import { createTransport, type Exchange, type Transport } from './transport.ts';

interface Options {
  readonly signal: AbortSignal;
}

/**
 * Writes to OCI registries (distribution spec 1.1, push), and reads the lists of referrers that only writers must change.
 * Throws AUTH_REFUSED, REGISTRY_RESPONSE (with status), URL_REFUSED, SOURCE_FAILED.
 */
export interface RegistryPusher {
  /** Uploads a blob unless the repository has it; its digest. */
  putBlob(repository: Repository, bytes: Uint8Array, options: Options): Promise<Digest>;
  /** Puts a manifest under a tag or its digest; whether the registry took note of its `subject`. */
  putManifest(
    repository: Repository,
    manifest: { readonly target: string; readonly mediaType: string; readonly bytes: Uint8Array },
    options: Options,
  ): Promise<{ readonly subjectKnown: boolean }>;
  close(): Promise<void>;
}

export function createRegistryPusher(
  components: RegistryClientComponents,
  init: RegistryClientInit = {},
): RegistryPusher {
  return new Pusher(components, init);
}

class Pusher implements RegistryPusher {
  readonly #policy: UrlPolicy;
  readonly #transport: Transport;
  readonly #tokens: TokenSource;
  readonly #session: RegistrySession;
  readonly #retry;
  readonly #init: RegistryClientInit;

  constructor(components: RegistryClientComponents, init: RegistryClientInit) {
    this.#policy = components.policy;
    this.#init = init;
    this.#retry = { clock: components.clock, random: components.random ?? Math.random };
    this.#transport = createTransport(components, init);
    this.#tokens = createTokenSource({ ...components, ...this.#retry, transport: this.#transport });
    this.#session = new RegistrySession({ ...components, transport: this.#transport, tokens: this.#tokens });
  }

  async putBlob(repository: Repository, bytes: Uint8Array, { signal }: Options): Promise<Digest> {
    const digest = sha256(bytes);
    if (await this.#has(repository, digest, signal)) return digest;
    const start = `/v2/${repository.repository}/blobs/uploads/`;
    // One try in all: where an upload goes on is good for one.
    const opened = await this.#send(repository, { path: start, method: 'POST', body: new Uint8Array(0), signal });
    const { location } = opened.headers;
    if (opened.status !== 202 || location === undefined) {
      throw new ShoalError('REGISTRY_RESPONSE', `${repository.registry} does not open an upload`, {
        status: opened.status,
      });
    }
    const target = this.#policy.redirect(
      this.#policy.registry(repository.registry, start),
      withDigest(location, digest),
    );
    const contentType = 'application/octet-stream';
    await this.#send(repository, { path: start, target, method: 'PUT', contentType, body: bytes, signal }, 201);
    return digest;
  }

  async putManifest(
    repository: Repository,
    { target, mediaType, bytes }: { target: string; mediaType: string; bytes: Uint8Array },
    { signal }: Options,
  ): Promise<{ subjectKnown: boolean }> {
    if (bytes.byteLength > MANIFEST_LIMITS.maxBytes) throw new ShoalError('TOO_LARGE', 'the manifest is too large');
    const path = `/v2/${repository.repository}/manifests/${encodeURIComponent(target).replace('%3A', ':')}`;
    const request = { path, method: 'PUT' as const, contentType: mediaType, body: bytes, signal };
    const { headers } = await this.#send(repository, request, 201);
    return { subjectKnown: headers['oci-subject'] !== undefined };
  }

  async close(): Promise<void> {
    this.#tokens.close();
    await this.#transport.close();
  }

  async #has({ registry, repository }: Repository, digest: Digest, signal: AbortSignal): Promise<boolean> {
    const path = `/v2/${repository}/blobs/${parseDigest(digest)}`;
    try {
      await this.#send({ registry, repository }, { path, method: 'HEAD', signal }, 200);
      return true;
    } catch (error) {
      if (error instanceof ShoalError && error.context.status === 404) return false;
      throw error;
    }
  }

  async #send(
    { registry, repository }: Repository,
    request: Pick<SessionRequest, 'path' | 'method' | 'signal' | 'body' | 'contentType' | 'target'>,
    wanted?: number,
  ): Promise<Exchange> {
    const attempt = () =>
      this.#session.send({ ...request, registry, repository, push: true, plan: () => ({ kind: 'discard' }) });
    const init = request.target === undefined ? this.#init : { ...this.#init, attempts: 1 };
    const answer = await withRetries(this.#retry, { ...REGISTRY_LIMITS, ...init }, request.signal, attempt);
    if (wanted === undefined || answer.status === wanted) return answer;
    const what = `${registry} answered ${answer.status} instead of ${wanted} to ${request.method} ${request.path}`;
    throw new ShoalError('REGISTRY_RESPONSE', what, { status: answer.status });
  }
}

/** The address of an upload, with the digest that ends it. */
function withDigest(location: string, digest: Digest): string {
  return `${location}${location.includes('?') ? '&' : '?'}digest=${encodeURIComponent(digest)}`;
}
