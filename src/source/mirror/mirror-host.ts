import { getCACertificates } from 'node:tls';
import type { Clock } from '../../clock.ts';
import type { ChunkTable } from '../../core/chunk-table.ts';
import type { Digest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import type { RangedBlob } from '../../image/layer-reader.ts';
import type { Logger } from '../../log.ts';
import type { ChunkStore } from '../../store/chunk-store.ts';
import { chainCredentials } from '../origin/credentials.ts';
import { createOriginStore, type OnExtent } from '../origin/origin-store.ts';
import { createRegistryClient, type RegistryClient, type RegistryClientInit } from '../origin/registry-client.ts';
import { createTransport, type TransportTls } from '../origin/transport.ts';
import { approveMirror, type UrlPolicy } from '../url-policy.ts';
import { createDeclines, type Declines } from './declines.ts';
import type { Endpoint } from './endpoint.ts';
import type { MirrorEntry } from './hosts-file.ts';
import { MIRROR_LIMITS } from './limits.ts';
import { createMirrorPolicy, type PullToken } from './mirror-policy.ts';
import { type PieceCache, pieceBlob } from './piece-blob.ts';
import type { Target } from './target.ts';

type Urgency = 'demand' | 'prefetch';

/** What mirrors need to know of the blobs of this node. */
export interface MirrorBlobs {
  table(blob: Digest): ChunkTable | undefined;
  /**
   * Compressed length, the repositories it is known from, newest first, and the name it has there if not this one;
   * undefined for a blob nobody knows.
   */
  find(
    blob: Digest,
  ): { size: number; sources: readonly { registry: string; repository: string }[]; remote?: Digest } | undefined;
  /** As `OriginBlobs.window`. */
  window?(blob: Digest, row: number): Promise<Uint8Array>;
  /** Told of the other chunks that came with one, as the origin store's `onExtent`. */
  readonly onExtent?: OnExtent;
}

/** Times of one mirror, ms. */
export interface MirrorTimes {
  readonly firstByteTimeoutMs: number;
  readonly attemptTimeoutMs: number;
}

/** One mirror on behalf of one registry: a registry client, and a chunk store over the same coalescing as the origin's. */
export interface MirrorHost {
  readonly target: Target;
  readonly registry: string;
  readonly pull: boolean;
  readonly resolve: boolean;
  readonly endpoint: Endpoint;
  readonly declines: Declines;
  /** The registry's pull token is lent to it. */
  readonly mayHaveToken: boolean;
  /** A failure that took this long cost the reader something. */
  readonly costlyMs: number;
  readonly store: ChunkStore;
  /** Compressed bytes it gave for this registry. */
  bytes(): number;
  client(urgency: Urgency): RegistryClient;
  /** The blob through this mirror, in whole pieces where it is a Dragonfly client. */
  ranged(repository: string, blob: { digest: Digest; size: number }): RangedBlob;
  /** Its bytes were wrong: nothing that came from it is kept. */
  forget(): void;
  close(): Promise<void>;
}

export interface MirrorHostComponents {
  readonly policy: UrlPolicy;
  readonly clock: Clock;
  readonly log: Logger;
  readonly blobs: MirrorBlobs;
  readonly pullToken: PullToken | undefined;
  /** Told of compressed layer bytes as they arrive. */
  readonly onFetched?: (bytes: number) => void;
}

/** How to connect to one mirror, for its clients and its health checks. */
export interface MirrorConnection extends MirrorTimes {
  readonly dialTimeoutMs: number;
  readonly tls: TransportTls;
}

export function createMirrorHost(
  components: MirrorHostComponents & { endpoint: Endpoint; pieces: PieceCache },
  init: { target: Target; registry: string; pull: boolean; resolve: boolean; connection: MirrorConnection },
): MirrorHost {
  const { clock, blobs, endpoint, pieces } = components;
  const { target, registry, connection } = init;
  const clients = new Map<Urgency, RegistryClient>();
  let bytes = 0;

  function client(urgency: Urgency): RegistryClient {
    let made = clients.get(urgency);
    if (made === undefined) {
      const policy = createMirrorPolicy(components, { target, registry, urgency });
      const credentials = chainCredentials([]);
      made = createRegistryClient({ ...components, policy, credentials }, clientInit(connection, target));
      clients.set(urgency, made);
    }
    return made;
  }

  function ranged(repository: string, { digest, size }: { digest: Digest; size: number }): RangedBlob {
    const plain: RangedBlob = {
      digest,
      size,
      async read(offset, length, options) {
        const from = await client(options.urgency ?? 'demand').blob(
          { registry, repository },
          { digest, size },
          options,
        );
        const read = await from.read(offset, length, options);
        bytes += read.byteLength;
        endpoint.counters.bytes += read.byteLength;
        return read;
      },
    };
    if (target.dragonfly === undefined) return plain;
    return pieceBlob(plain, { cache: pieces }, { pieceBytes: MIRROR_LIMITS.pieceBytes });
  }

  /** From the repositories of this registry that have the blob; the last error counts. */
  function known(blob: Digest): RangedBlob | undefined {
    const found = blobs.find(blob);
    const own = found?.sources.filter((source) => source.registry === registry) ?? [];
    if (found === undefined || own.length === 0) return undefined;
    const { remote: digest = blob } = found;
    return {
      digest: blob,
      size: found.size,
      async read(offset, length, options) {
        let last: unknown;
        for (const { repository } of own) {
          try {
            return await ranged(repository, { digest, size: found.size }).read(offset, length, options);
          } catch (error) {
            last = error;
            const status = error instanceof ShoalError ? error.context.status : undefined;
            // Only an answer about the repository makes the next one worth asking.
            if (options.signal.aborted || (status !== 404 && status !== 403 && status !== 401)) throw error;
          }
        }
        throw last;
      },
    };
  }

  const store = createOriginStore(
    {
      blobs: {
        table: (blob) => blobs.table(blob),
        ranged: known,
        ...(blobs.window === undefined ? {} : { window: blobs.window }),
      },
      onFetched: (_blob, fetched) => components.onFetched?.(fetched),
      ...(blobs.onExtent === undefined ? {} : { onExtent: blobs.onExtent }),
    },
    {
      keptBytes: MIRROR_LIMITS.keptExtentBytes,
      inFlightBytes: MIRROR_LIMITS.inFlightBytes,
      // Each request has the same time, so none is longer than what somebody may wait for.
      demandRequestBytes: MIRROR_LIMITS.pieceBytes,
      prefetchRequestBytes: MIRROR_LIMITS.pieceBytes,
    },
  );

  return {
    target,
    registry,
    pull: init.pull,
    resolve: init.resolve,
    endpoint,
    declines: createDeclines({ clock }),
    mayHaveToken: components.pullToken !== undefined,
    costlyMs: Math.min(MAX_CHEAP_MS, connection.dialTimeoutMs / 2),
    store,
    bytes: () => bytes,
    client,
    ranged,
    forget: () => pieces.clear(),
    async close() {
      await store.close();
      for (const each of clients.values()) await each.close();
    },
  };
}

/** A failure this fast costs no more than a few reads in a row may pay. */
const MAX_CHEAP_MS = 500;

function clientInit(connection: MirrorConnection, target: Target): RegistryClientInit {
  const { dialTimeoutMs, firstByteTimeoutMs, attemptTimeoutMs, tls } = connection;
  return {
    // The next source is the second try.
    attempts: 1,
    connections: MIRROR_LIMITS.connections,
    connectTimeoutMs: dialTimeoutMs,
    headersTimeoutMs: firstByteTimeoutMs,
    stallTimeoutMs: firstByteTimeoutMs,
    attemptTimeoutMs,
    tls,
    ...(target.proxy === undefined ? {} : { proxy: target.proxy }),
  };
}

/** Authorities of an entry come on top of the built-in ones, as in containerd. */
export function tlsOf(entry: MirrorEntry | undefined, certificates: ReadonlyMap<string, string>): TransportTls {
  if (entry === undefined) return {};
  const pem = (path: string): string => certificates.get(path) ?? '';
  return {
    ...(entry.ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...entry.ca.map(pem)] }),
    ...(entry.client.length === 0
      ? {}
      : {
          cert: entry.client.map(([certificate]) => pem(certificate)),
          key: entry.client.map(([certificate, key]) => pem(key ?? certificate)),
        }),
    ...(entry.skipVerify ? { rejectUnauthorized: false } : {}),
  };
}

/** Asks a mirror whether it is well: its `ping_url` must answer 2xx; without one its API may answer anything below 500. */
export async function pingMirror(
  components: { policy: UrlPolicy },
  init: { target: Target; connection: MirrorConnection; signal: AbortSignal },
): Promise<boolean> {
  const { target, connection } = init;
  const policy = createMirrorPolicy(
    { policy: components.policy, pullToken: undefined },
    { target, registry: target.name, urgency: 'demand' },
  );
  const { dialTimeoutMs, tls } = connection;
  const timeoutMs = MIRROR_LIMITS.pingTimeoutMs;
  const transport = createTransport(
    { policy },
    { connectTimeoutMs: dialTimeoutMs, headersTimeoutMs: timeoutMs, attemptTimeoutMs: timeoutMs, tls },
  );
  try {
    const url = target.pingUrl ?? (target.proxy === undefined ? `${target.base}/` : `${target.proxy}/`);
    const { status } = await transport.request(approveMirror(target.name, url), {
      method: 'GET',
      headers: {},
      signal: init.signal,
      plan: () => ({ kind: 'discard' }),
    });
    if (target.pingUrl !== undefined) return status >= 200 && status < 300;
    // A Dragonfly client passes on what the registry says, which is no word on its own health.
    return status < 500 || target.dragonfly !== undefined;
  } finally {
    await transport.close();
  }
}
