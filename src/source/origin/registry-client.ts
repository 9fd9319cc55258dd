import { hash } from 'node:crypto';
import type { Clock } from '../../clock.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest, sha256 } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import type { RangedBlob } from '../../image/layer-reader.ts';
import {
  ARTIFACT_TYPES,
  INDEX_TYPES,
  type IndexEntry,
  MANIFEST_LIMITS,
  MANIFEST_TYPES,
  parseManifest,
} from '../../image/manifest.ts';
import type { Reference } from '../../image/reference.ts';
import type { Logger } from '../../log.ts';
import type { UrlPolicy } from '../url-policy.ts';
import { BlobReader, type BlobTail, requireIdentity } from './blob-reader.ts';
import { parseContentLength } from './content-range.ts';
import type { CredentialChain } from './credentials.ts';
import { REGISTRY_LIMITS } from './limits.ts';
import { createRegistryGate, type RegistryGate } from './registry-gate.ts';
import { type RetryInit, withRetries } from './retry.ts';
import type { Secret } from './secret.ts';
import { RegistrySession, type SessionRequest } from './session.ts';
import { createTokenSource, type TokenSource } from './token.ts';
import {
  createTransport,
  type Exchange,
  type ResponseHeaders,
  type Transport,
  type TransportInit,
} from './transport.ts';

/** Registry and repository of an image: what a request to its registry needs of a reference. */
export type Repository = Pick<Reference, 'registry' | 'repository'>;

interface Options {
  readonly signal: AbortSignal;
  /** In place of the client's own: short where somebody has another way to go. Holds for all reads of a blob. */
  readonly retryBudgetMs?: number;
}

/** What a tag points at. */
export interface ResolvedReference {
  readonly digest: Digest;
  /** Media type of the manifest or index; undefined when the registry does not say one of the known ones. */
  readonly mediaType?: string;
}

/** A manifest or index as bytes, digest checked; `mediaType` as the registry says. */
export interface FetchedManifest extends ResolvedReference {
  readonly bytes: Uint8Array;
}

/**
 * Reads from OCI registries (distribution spec 1.1, pull). All calls retry what may pass, within their signal's
 * deadline, and throw AUTH_REFUSED, REGISTRY_RESPONSE (with status), URL_REFUSED, SOURCE_FAILED, RANGE_MISMATCH or
 * DEADLINE_EXCEEDED. Only manifests and configs are verified here; ranges of blobs are whoever asks for them's to verify.
 */
export interface RegistryClient {
  /** Digest and media type of what the reference names: its digest when it has one, else what its tag points at now. */
  resolve(reference: Reference, options: Options): Promise<ResolvedReference>;
  /** The manifest by digest or tag; default: what the reference names. Throws INVALID_MANIFEST for wrong bytes. */
  manifest(reference: Reference, target: Digest | string | undefined, options: Options): Promise<FetchedManifest>;
  /** A blob that is read by range; asks for its size when the descriptor has none. */
  blob(repository: Repository, descriptor: { digest: Digest; size?: number }, options: Options): Promise<RangedBlob>;
  /** The last `maxBytes` of a blob (all of a shorter one) and its size, usually in one request. */
  blobTail(repository: Repository, digest: Digest, maxBytes: number, options: Options): Promise<BlobTail>;
  /** A small blob as a whole, such as the image config, verified. Throws INVALID_MANIFEST for wrong bytes. */
  config(repository: Repository, descriptor: { digest: Digest; size: number }, options: Options): Promise<Uint8Array>;
  /**
   * The Authorization header with the registry's token for pulls of this one repository, when there is one that ends
   * within five minutes; never a password. For mirrors that the operator lets have it.
   */
  pullToken(repository: Repository): Secret | undefined;
  /**
   * Manifests that name `subject` as theirs: the registry's own list, or where it keeps none the index under the tag
   * that stands in for it (distribution spec, referrers tag schema). All kinds; only a hint of what is there.
   */
  referrers(repository: Repository, subject: Digest, options: Options): Promise<readonly IndexEntry[]>;
  /** There are new credentials for this repository: refusals of the former ones are forgotten. */
  renewed(repository: Repository): void;
  /** Cuts all connections; calls under way fail. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What the client is made of; `random` (in [0, 1)) is the jitter of retries. */
export interface RegistryClientComponents {
  readonly policy: UrlPolicy;
  readonly credentials: CredentialChain;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random?: () => number;
}

/** Tuning, defaults in `REGISTRY_LIMITS`. */
export interface RegistryClientInit extends TransportInit, RetryInit {}

const ACCEPT = [...MANIFEST_TYPES, ...INDEX_TYPES, ...ARTIFACT_TYPES].join(', ');

/** A registry client over HTTP/1.1 with keep-alive. */
export function createRegistryClient(
  components: RegistryClientComponents,
  init: RegistryClientInit = {},
): RegistryClient {
  return new Client(components, init);
}

class Client implements RegistryClient {
  readonly #transport: Transport;
  readonly #tokens: TokenSource;
  readonly #session: RegistrySession;
  readonly #retry: { clock: Clock; random: () => number };
  readonly #init: RegistryClientInit;
  readonly #log: Logger;
  readonly #blobs: BlobReader;
  readonly #gate: RegistryGate;

  constructor(components: RegistryClientComponents, init: RegistryClientInit) {
    this.#init = init;
    this.#log = components.log;
    this.#retry = { clock: components.clock, random: components.random ?? Math.random };
    this.#transport = createTransport(components, init);
    this.#tokens = createTokenSource({ ...components, ...this.#retry, transport: this.#transport });
    this.#session = new RegistrySession({ ...components, transport: this.#transport, tokens: this.#tokens });
    const { attempts, connections, maxRetryAfterMs, retryBudgetMs } = { ...REGISTRY_LIMITS, ...init };
    this.#gate = createRegistryGate(
      { ...this.#retry, log: components.log },
      {
        most: connections,
        longestWaitMs: maxRetryAfterMs,
        budgetMs: retryBudgetMs,
        rests: attempts > 1,
      },
    );
    this.#blobs = new BlobReader((request) => this.#send(request));
  }

  async resolve(reference: Reference, options: Options): Promise<ResolvedReference> {
    const target = reference.digest ?? reference.tag ?? 'latest';
    let answer: Exchange | undefined;
    try {
      const request = this.#manifestRequest(reference, target, 'HEAD', options);
      answer = await this.#send({ ...request, plan: () => ({ kind: 'discard' }) });
    } catch (error) {
      // Some registries don't know HEAD here.
      if (!(error instanceof ShoalError && error.context.status === 405)) throw error;
    }
    const stated = answer?.headers['docker-content-digest'];
    if (answer === undefined || (reference.digest === undefined && stated === undefined)) {
      const { digest, mediaType } = await this.manifest(reference, target, options);
      return { digest, ...(mediaType === undefined ? {} : { mediaType }) };
    }
    return { digest: reference.digest ?? parseDigest(stated), ...knownType(answer.headers) };
  }

  async manifest(
    reference: Reference,
    target: Digest | string | undefined,
    options: Options,
  ): Promise<FetchedManifest> {
    const wanted = target ?? reference.digest ?? reference.tag ?? 'latest';
    const exchange = await this.#send(this.#manifestRequest(reference, wanted, 'GET', options));
    const bytes = exchange.body;
    const stated = exchange.headers['docker-content-digest'];
    const expected = wanted.includes(':')
      ? parseDigest(wanted)
      : stated === undefined
        ? undefined
        : parseDigest(stated);
    if (expected !== undefined)
      verify(bytes, expected, `manifest ${reference.registry}/${reference.repository}:${wanted}`);
    return { bytes, digest: expected ?? sha256(bytes), ...knownType(exchange.headers) };
  }

  async blob(
    repository: Repository,
    { digest, size }: { digest: Digest; size?: number },
    options: Options,
  ): Promise<RangedBlob> {
    const where = within(repository, options);
    const known = size ?? (await this.#blobs.size(where, digest, options.signal));
    return {
      digest,
      size: known,
      read: (offset, length, how) => this.#blobs.read(where, digest, known, { offset, length }, how),
    };
  }

  blobTail(repository: Repository, digest: Digest, maxBytes: number, options: Options): Promise<BlobTail> {
    return this.#blobs.tail(within(repository, options), digest, maxBytes, options.signal);
  }

  async config(
    repository: Repository,
    { digest, size }: { digest: Digest; size: number },
    { signal }: Options,
  ): Promise<Uint8Array> {
    if (size > REGISTRY_LIMITS.maxConfigBytes) {
      throw new ShoalError('TOO_LARGE', `config ${digest} has ${size} bytes, limit ${REGISTRY_LIMITS.maxConfigBytes}`);
    }
    const bytes = await this.#blobs.whole(repository, digest, size, signal);
    verify(bytes, digest, 'config');
    return bytes;
  }

  pullToken(repository: Repository): Secret | undefined {
    return this.#tokens.lendable(repository);
  }

  async referrers(repository: Repository, subject: Digest, options: Options): Promise<readonly IndexEntry[]> {
    const path = `/v2/${repository.repository}/referrers/${parseDigest(subject)}`;
    const request = this.#manifestRequest(repository, subject, 'GET', options);
    const listed = (await this.#unlessAbsent(() => this.#send({ ...request, path })))?.body;
    const tag = this.#manifestRequest(repository, referrersTag(subject), 'GET', options);
    const bytes = listed ?? (await this.#unlessAbsent(() => this.#send(tag)))?.body;
    if (bytes === undefined) return [];
    const document = parseManifest(bytes);
    if (document.kind !== 'index') throw new ShoalError('INVALID_MANIFEST', 'the list of referrers is not an index');
    return document.manifests;
  }

  /** Undefined when the registry knows no such thing, or no such question. */
  async #unlessAbsent<T>(ask: () => Promise<T>): Promise<T | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof ShoalError && [400, 404, 405, 501].includes(error.context.status ?? 0)) return undefined;
      throw error;
    }
  }

  renewed(repository: Repository): void {
    this.#tokens.renewed(repository);
  }

  async close(): Promise<void> {
    this.#tokens.close();
    this.#gate.close();
    await this.#transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #manifestRequest(
    { registry, repository }: Repository,
    target: string,
    method: 'GET' | 'HEAD',
    { signal, retryBudgetMs }: Options,
  ): SessionRequest {
    return {
      registry,
      repository,
      ...(retryBudgetMs === undefined ? {} : { retryBudgetMs }),
      path: `/v2/${repository}/manifests/${checkTarget(target)}`,
      method,
      accept: ACCEPT,
      signal,
      plan(status, headers) {
        requireIdentity(registry, headers);
        if (status !== 200)
          throw new ShoalError('REGISTRY_RESPONSE', `${registry} answered ${status} for a manifest`, { status });
        const length = parseContentLength(headers['content-length']) ?? 0;
        if (length > MANIFEST_LIMITS.maxBytes) {
          throw new ShoalError('INVALID_MANIFEST', `manifest of ${length} bytes, limit ${MANIFEST_LIMITS.maxBytes}`);
        }
        return { kind: 'upTo', bytes: MANIFEST_LIMITS.maxBytes };
      },
    };
  }

  #send(request: SessionRequest): Promise<Exchange> {
    const { registry, path, signal, retryBudgetMs } = request;
    const { clock } = this.#retry;
    const endsAtMs = retryBudgetMs === undefined ? undefined : clock.nowMs() + retryBudgetMs;
    return withRetries(
      this.#retry,
      { ...this.#init, ...(retryBudgetMs === undefined ? {} : { retryBudgetMs }) },
      signal,
      (giveUpAtMs = endsAtMs) =>
        this.#gate.pass(request, (progress) => this.#session.send(request, progress), giveUpAtMs),
      (error, waitMs) => {
        this.#log.debug('registry request failed, trying again', { registry, path, error: error.message, waitMs });
      },
      () => Math.min(this.#gate.patienceMs(registry), retryBudgetMs ?? Number.POSITIVE_INFINITY),
    );
  }
}

function within({ registry, repository }: Repository, { retryBudgetMs }: Options) {
  return { registry, repository, ...(retryBudgetMs === undefined ? {} : { retryBudgetMs }) };
}

/** The tag under which referrers are listed in registries that do not list them themselves. */
export function referrersTag(subject: Digest): string {
  return subject.replace(':', '-').slice(0, 128);
}

/** Tags come from parsed references and digests from manifests, but both end up in a path. */
function checkTarget(target: string): string {
  if (target.includes(':')) return parseDigest(target);
  if (/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/.test(target)) return target;
  throw new ShoalError('INVALID_REFERENCE', `${JSON.stringify(target.slice(0, 80))} is not a tag`);
}

function verify(bytes: Uint8Array, digest: Digest, what: string): void {
  const algorithm = digestAlgorithm(digest);
  if (algorithm === 'blake3')
    throw new ShoalError('INVALID_MANIFEST', `${what}: blake3 digests are not supported here`);
  const found = hash(algorithm, bytes, 'hex');
  if (found !== digestHex(digest)) {
    throw new ShoalError('INVALID_MANIFEST', `${what}: its digest is ${algorithm}:${found}, expected ${digest}`);
  }
}

function knownType(headers: ResponseHeaders): { mediaType?: string } {
  const type = headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  const known = [...MANIFEST_TYPES, ...INDEX_TYPES].find((each) => each === type);
  return known === undefined ? {} : { mediaType: known };
}
