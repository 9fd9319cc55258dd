import { createSecureContext, type SecureContext } from 'node:tls';
import { buildConnector, type Dispatcher, Pool } from 'undici';
import { type ByteBudget, createByteBudget } from '../../../core/byte-budget.ts';
import type { Chunk, ChunkRef } from '../../../core/chunk.ts';
import type { Digest } from '../../../core/digest.ts';
import { ShoalError } from '../../../errors.ts';
import type { Urgency } from '../../../store/chunk-store.ts';
import { verifyChunk } from '../../../store/verify-chunk.ts';
import { copied, inPlaceReads } from '../../in-place-reads.ts';
import type { Neighbour } from '../directory.ts';
import { ChunkExchange, type ReceivedChunk } from './chunk-exchange.ts';
import { chunkTarget } from './chunk-request.ts';
import { fingerprintOf, type TlsIdentity } from './identity.ts';
import { indexTarget, MAX_SENT_INDEX_BYTES } from './index-request.ts';
import { DATA_LIMITS } from './limits.ts';

/** How to ask a neighbour. */
export interface FetchOptions {
  readonly signal: AbortSignal;
  /** Looked at again when the request's turn comes. */
  readonly urgency: Urgency;
  /** How long the neighbour may keep the request while it gets the chunk itself, ms; 0 (default): not at all. */
  readonly waitMs?: number;
  /** The ref's length is the most that is taken: how long the bytes are is not known before. */
  readonly isAtMost?: boolean;
}

/** A chunk that a neighbour sent, and how long that took. */
export interface FetchedChunk {
  readonly chunk: Chunk;
  readonly firstByteMs: number;
  readonly totalMs: number;
}

/**
 * Asks neighbours for chunks over HTTPS. Throws CHUNK_MISSING (it has none), UNAVAILABLE (busy; `retryAfterMs`),
 * CHUNK_CORRUPT (it sent something else), SOURCE_FAILED (anything that can go wrong on the way), or the signal's reason.
 */
export interface ChunkClient {
  fetch(neighbour: Neighbour, ref: Pick<ChunkRef, 'digest' | 'length'>, options: FetchOptions): Promise<FetchedChunk>;
  /**
   * The index that it has for a layer, as it sent it: nothing says what it must be. Undefined when it gives none. Throws
   * SOURCE_FAILED, TOO_LARGE, or the signal's reason.
   */
  index(neighbour: Neighbour, layer: Digest, options: { signal: AbortSignal }): Promise<Uint8Array | undefined>;
  close(): Promise<void>;
}

/** A client that shows `identity` to neighbours. */
export function createChunkClient(components: { identity: TlsIdentity }): ChunkClient {
  return new PooledClient(components.identity);
}

interface Line {
  readonly fingerprint: string;
  readonly pool: Pool;
  /** Turns for requests that are answered at once, and for those that may be kept open: as many as connections. */
  readonly requests: ByteBudget;
  readonly waits: ByteBudget;
}

class PooledClient implements ChunkClient {
  readonly #context: SecureContext;
  /** By address and port; least recently used first. */
  readonly #lines = new Map<string, Line>();
  readonly #budget: ByteBudget;
  #closed = false;

  constructor(identity: TlsIdentity) {
    const { key, cert } = identity;
    // Made once: parsing key and certificate takes longer than the handshake.
    this.#context = createSecureContext({ key, cert, minVersion: 'TLSv1.3', ecdhCurve: 'X25519:P-256' });
    const most = DATA_LIMITS.clientInFlightBytes;
    this.#budget = createByteBudget(most, { keptForUrgent: most / 4 });
  }

  async fetch(
    neighbour: Neighbour,
    ref: Pick<ChunkRef, 'digest' | 'length'>,
    options: FetchOptions,
  ): Promise<FetchedChunk> {
    const { signal, waitMs = 0, isAtMost = false } = options;
    signal.throwIfAborted();
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the swarm is closed');
    const line = this.#line(neighbour);
    const turn = {
      signal,
      get urgent() {
        return options.urgency === 'demand';
      },
    };
    const ask = (): Promise<FetchedChunk> =>
      this.#budget.use(ref.length, turn, () => {
        const target = chunkTarget({ digest: ref.digest, urgency: options.urgency, waitMs: Math.floor(waitMs) });
        return this.#exchange(line.pool, neighbour, { ref, target, signal, isAtMost });
      });
    return await (waitMs > 0 ? line.waits : line.requests).use(1, turn, ask);
  }

  async index(neighbour: Neighbour, layer: Digest, { signal }: { signal: AbortSignal }) {
    signal.throwIfAborted();
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the swarm is closed');
    const { pool, requests } = this.#line(neighbour);
    const turn = { signal, urgent: true };
    return await requests.use(1, turn, () =>
      this.#budget.use(MAX_SENT_INDEX_BYTES, turn, () => requestIndex(pool.compose(copied), neighbour, layer, signal)),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    const lines = [...this.#lines.values()];
    this.#lines.clear();
    await Promise.all(lines.map(({ pool }) => pool.destroy()));
  }

  async #exchange(
    pool: Pool,
    neighbour: Neighbour,
    asked: { ref: Pick<ChunkRef, 'digest' | 'length'>; target: string; signal: AbortSignal; isAtMost: boolean },
  ): Promise<FetchedChunk> {
    const { ref, target, signal, isAtMost } = asked;
    const startedMs = performance.now();
    const received = await new Promise<ReceivedChunk>((resolve, reject) => {
      signal.throwIfAborted();
      const exchange = new ChunkExchange({ ref, isAtMost, peer: neighbour.id, signal, resolve, reject });
      try {
        pool.dispatch({ path: target, method: 'GET', idempotent: true }, exchange);
      } catch (error) {
        exchange.onResponseError(undefined, error as Error);
      }
    });
    const totalMs = performance.now() - startedMs;
    const length = isAtMost ? received.bytes.byteLength : ref.length;
    const chunk = await verifyChunk({ digest: ref.digest, length }, received.bytes, { owned: true });
    return { chunk, firstByteMs: received.firstByteMs - startedMs, totalMs };
  }

  #line(neighbour: Neighbour): Line {
    const { address, dataPort, fingerprint } = neighbour;
    const origin = `https://${address.includes(':') ? `[${address}]` : address}:${dataPort}`;
    const known = this.#lines.get(origin);
    this.#lines.delete(origin);
    if (known !== undefined && known.fingerprint !== fingerprint) void known.pool.destroy();
    const line = known?.fingerprint === fingerprint ? known : this.#open(origin, fingerprint);
    this.#lines.set(origin, line);
    for (const [oldest, { pool }] of this.#lines) {
      if (this.#lines.size <= DATA_LIMITS.clientPools) break;
      this.#lines.delete(oldest);
      // What is under way there ends first.
      void pool.close();
    }
    return line;
  }

  #open(origin: string, fingerprint: string): Line {
    const { clientRequests, clientWaits, clientForDemand: keptForUrgent } = DATA_LIMITS;
    const pool = new Pool(origin, {
      connections: clientRequests + clientWaits,
      pipelining: 1,
      keepAliveTimeout: DATA_LIMITS.clientKeepAliveMs,
      keepAliveMaxTimeout: DATA_LIMITS.clientKeepAliveMs,
      maxHeaderSize: DATA_LIMITS.maxHeaderBytes,
      // The exchange has its own deadlines.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: pinned(this.#context, fingerprint),
    });
    const requests = createByteBudget(clientRequests, { keptForUrgent });
    return { fingerprint, pool, requests, waits: createByteBudget(clientWaits, { keptForUrgent }) };
  }
}

async function requestIndex(
  pool: Dispatcher,
  { id }: Neighbour,
  layer: Digest,
  signal: AbortSignal,
): Promise<Uint8Array | undefined> {
  try {
    const { statusCode, headers, body } = await pool.request({ path: indexTarget(layer), method: 'GET', signal });
    if (statusCode !== 200) {
      await body.dump({ limit: 0 });
      return undefined;
    }
    const length = Number(headers['content-length']);
    if (!(length <= MAX_SENT_INDEX_BYTES)) {
      body.destroy();
      throw new ShoalError('TOO_LARGE', `neighbour ${id} sends an index of ${headers['content-length']} bytes`);
    }
    // Never more than it said: HTTP/1.1 ends a body there.
    return new Uint8Array(await body.arrayBuffer());
  } catch (cause) {
    signal.throwIfAborted();
    if (cause instanceof ShoalError) throw cause;
    throw new ShoalError('SOURCE_FAILED', `neighbour ${id} does not send an index`, { cause });
  }
}

/** Connects, and hands the connection over only when the other side showed the certificate with this fingerprint. */
function pinned(context: SecureContext, fingerprint: string): buildConnector.connector {
  const connect = buildConnector({
    timeout: DATA_LIMITS.connectMs,
    allowH2: false,
    // A resumed session would be checked by its ticket; a handshake costs 1 ms on a LAN.
    maxCachedSessions: 0,
    secureContext: context,
    ...inPlaceReads,
    // Certificates sign themselves: the pin is the check.
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  } as buildConnector.BuildOptions);
  return (options, callback) =>
    connect(options, (error, socket) => {
      if (error !== null || socket === null) {
        callback(error ?? new Error('no connection'), null);
        return;
      }
      const certificate = 'getPeerX509Certificate' in socket ? socket.getPeerX509Certificate() : undefined;
      if (certificate !== undefined && fingerprintOf(certificate.raw) === fingerprint) {
        callback(null, socket);
        return;
      }
      socket.destroy();
      callback(new ShoalError('SOURCE_FAILED', 'shows another certificate than the swarm knows of it'), null);
    });
}
