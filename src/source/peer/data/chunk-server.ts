import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../../../clock.ts';
import type { Logger } from '../../../log.ts';
import type { SharedChunks } from '../../../store/shared-chunks.ts';
import type { Neighbour, PeerDirectory } from '../directory.ts';
import { parseChunkTarget } from './chunk-request.ts';
import type { TlsIdentity } from './identity.ts';
import { parseIndexTarget, type SharedIndexes } from './index-request.ts';
import { DATA_LIMITS } from './limits.ts';
import { createTlsGate, type TlsGate } from './tls-gate.ts';
import { createUploads, type UploadStats, type Uploads } from './uploads.ts';

/** Serves this node's chunks to neighbours. */
export interface ChunkServer {
  /** Resolves with the port when it listens; throws UNAVAILABLE when it cannot. Idempotent. */
  start(): Promise<number>;
  /** Cuts every connection. Idempotent. */
  stop(): Promise<void>;
  stats(): ChunkServerStats;
  [Symbol.asyncDispose](): Promise<void>;
}

/** What the server did since it started. */
export interface ChunkServerStats extends UploadStats {
  readonly connections: number;
  /** Connections cut before they were admitted. */
  readonly refusedConnections: number;
  /** Requests that were not for a chunk. */
  readonly offences: number;
}

/** Where to listen (`port` 0: any free one) and how much to give: `bytesPerSecond` 0 is without limit. */
export interface ChunkServerInit {
  readonly host: string;
  readonly port: number;
  readonly bytesPerSecond?: number;
  readonly slots?: number;
}

/** What the server works with. */
export interface ChunkServerComponents {
  readonly directory: Pick<PeerDirectory, 'byFingerprint' | 'self'>;
  readonly chunks: SharedChunks;
  /** Absent: no indexes are given away. */
  readonly indexes?: SharedIndexes;
  readonly identity: TlsIdentity;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * `GET /chunk/<algorithm>/<hex>` over TLS 1.3 with certificates on both sides (design §7): exact bytes, or 404; and the
 * index of a layer, `GET /index/<algorithm>/<hex>`. Whoever
 * does not show the certificate of a known neighbour is cut before a byte of HTTP is read. `?wait=<ms>` keeps a request
 * for a chunk that this node is getting open; nothing that a neighbour sends makes this node fetch anything.
 */
export function createChunkServer(components: ChunkServerComponents, init: ChunkServerInit): ChunkServer {
  return new NeighbourServer(components, init);
}

class NeighbourServer implements ChunkServer {
  readonly #init: ChunkServerInit;
  readonly #directory: Pick<PeerDirectory, 'byFingerprint'>;
  readonly #log: Logger;
  readonly #http: Server;
  readonly #gate: TlsGate;
  readonly #uploads: Uploads;
  readonly #guests = new WeakMap<object, Neighbour>();
  #offences = 0;
  #starting: Promise<number> | undefined;
  #stopping: Promise<void> | undefined;

  constructor(components: ChunkServerComponents, init: ChunkServerInit) {
    const { directory, identity } = components;
    this.#init = init;
    this.#directory = directory;
    this.#log = components.log;
    this.#uploads = createUploads(components, { ...init, ownZone: directory.self.zone });
    this.#http = this.#makeHttp();
    this.#gate = createTlsGate({
      identity,
      directory,
      admitted: (socket, neighbour) => this.#admit(socket, neighbour),
    });
  }

  start(): Promise<number> {
    this.#starting ??= this.#gate.listen(this.#init);
    return this.#starting;
  }

  stop(): Promise<void> {
    this.#stopping ??= (async () => {
      this.#uploads.close();
      if (
        this.#starting !== undefined &&
        (await this.#starting.then(
          () => true,
          () => false,
        ))
      )
        await this.#gate.close();
    })();
    return this.#stopping;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  stats(): ChunkServerStats {
    const { connections, refused } = this.#gate;
    return { ...this.#uploads.stats(), connections, refusedConnections: refused, offences: this.#offences };
  }

  #makeHttp(): Server {
    const { maxHeaderBytes, maxHeaders, serverKeepAliveMs } = DATA_LIMITS;
    const http = createServer(
      { maxHeaderSize: maxHeaderBytes, keepAliveTimeout: serverKeepAliveMs, noDelay: true },
      (request, response) => this.#onRequest(request, response),
    );
    http.maxHeadersCount = maxHeaders;
    // Connections are handed to it, so its own timers for slow headers don't run: silence ends a connection.
    http.timeout = serverKeepAliveMs;
    const refuse = (request: IncomingMessage, response: ServerResponse): void => this.#offence(request, response);
    http.on('checkContinue', refuse);
    http.on('checkExpectation', refuse);
    http.on('connect', (_request, socket) => socket.destroy());
    http.on('clientError', (_error, socket) => {
      this.#offences += 1;
      socket.destroy();
    });
    return http;
  }

  #admit(socket: TLSSocket, neighbour: Neighbour): void {
    this.#guests.set(socket, neighbour);
    this.#http.emit('connection', socket);
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const admitted = this.#guests.get(request.socket);
    // It may have been banned, or have left, since it connected.
    const neighbour = admitted === undefined ? undefined : this.#directory.byFingerprint(admitted.fingerprint);
    if (neighbour === undefined) {
      request.socket.destroy();
      return;
    }
    const { headers, method, url } = request;
    const bodiless = headers['transfer-encoding'] === undefined && Number(headers['content-length'] ?? 0) === 0;
    const isPlain = method === 'GET' && bodiless && headers.upgrade === undefined;
    const layer = isPlain ? parseIndexTarget(url) : undefined;
    const asked = isPlain ? parseChunkTarget(url) : undefined;
    if (layer !== undefined) {
      response.sendDate = false;
      this.#answer(neighbour, `index of ${layer}`, this.#uploads.serveIndex(neighbour, layer, response), response);
      return;
    }
    if (asked === undefined) {
      this.#offence(request, response);
      return;
    }
    response.sendDate = false;
    this.#answer(neighbour, asked.digest, this.#uploads.serve(neighbour, asked, response), response);
  }

  #answer({ id }: Neighbour, what: string, serving: Promise<void>, response: ServerResponse): void {
    serving.catch((error) => {
      this.#log.warn('cannot serve a chunk', { peer: id, chunk: what, error: String(error) });
      response.destroy();
    });
  }

  /** Nothing is learnt from it but that there is nothing, and the connection ends (B10). */
  #offence(request: IncomingMessage, response: ServerResponse): void {
    this.#offences += 1;
    if (request.headers.expect !== undefined) {
      request.socket.destroy();
      return;
    }
    response.sendDate = false;
    response.writeHead(404, { 'content-length': 0, connection: 'close' }).end();
  }
}
