import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import { ShoalError } from '../../../errors.ts';
import type { Neighbour, PeerDirectory } from '../directory.ts';
import { fingerprintOf, type TlsIdentity } from './identity.ts';
import { DATA_LIMITS } from './limits.ts';

/** Accepts TLS connections of neighbours and of nobody else. */
export interface TlsGate {
  /** Resolves with the port when it listens; throws UNAVAILABLE when it cannot. */
  listen(at: { host: string; port: number }): Promise<number>;
  /** Refuses newcomers and cuts every connection. */
  close(): Promise<void>;
  readonly connections: number;
  /** Connections cut before they were admitted: no neighbour, no certificate, no TLS 1.3, too many. */
  readonly refused: number;
}

/** `admitted` is called with each connection whose certificate the directory knows, before anything is read from it. */
export function createTlsGate(components: {
  identity: TlsIdentity;
  directory: Pick<PeerDirectory, 'byFingerprint'>;
  admitted: (socket: TLSSocket, neighbour: Neighbour) => void;
}): TlsGate {
  return new PinnedGate(components);
}

class PinnedGate implements TlsGate {
  readonly #directory: Pick<PeerDirectory, 'byFingerprint'>;
  readonly #admitted: (socket: TLSSocket, neighbour: Neighbour) => void;
  readonly #tcp: Server;
  readonly #tls: TlsServer;
  readonly #sockets = new Set<Socket>();
  readonly #guests = new Set<TLSSocket>();
  readonly #perPeer = new Map<string, number>();
  #refused = 0;

  constructor(components: Parameters<typeof createTlsGate>[0]) {
    const { identity, directory, admitted } = components;
    this.#directory = directory;
    this.#admitted = admitted;
    this.#tcp = createTcpServer({ noDelay: true }, (socket) => this.#onConnection(socket));
    this.#tcp.maxConnections = DATA_LIMITS.connections;
    this.#tcp.on('drop', () => this.#count());
    this.#tls = createTlsServer(
      {
        key: identity.key,
        cert: identity.cert,
        minVersion: 'TLSv1.3',
        requestCert: true,
        // Certificates sign themselves: the pin is the check, made below before a byte is read.
        rejectUnauthorized: false,
        ecdhCurve: 'X25519:P-256',
        handshakeTimeout: DATA_LIMITS.handshakeMs,
      },
      (socket) => this.#onSecure(socket),
    );
    this.#tls.on('tlsClientError', (_error, socket) => {
      this.#count();
      socket.destroy();
    });
  }

  get connections(): number {
    return this.#guests.size;
  }

  get refused(): number {
    return this.#refused;
  }

  listen(at: { host: string; port: number }): Promise<number> {
    return new Promise((resolve, reject) => {
      const failed = (cause: Error): void => {
        const why = (cause as NodeJS.ErrnoException).code ?? cause.message;
        reject(new ShoalError('UNAVAILABLE', `cannot listen on ${at.host} port ${at.port} (${why})`, { cause }));
      };
      this.#tcp.once('error', failed);
      this.#tcp.listen({ ...at, backlog: DATA_LIMITS.handshakes }, () => {
        this.#tcp.off('error', failed);
        this.#tcp.on('error', () => {});
        resolve((this.#tcp.address() as { port: number }).port);
      });
    });
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#tcp.close(() => resolve()));
    for (const socket of [...this.#guests, ...this.#sockets]) socket.destroy();
    await closed;
  }

  #count(): void {
    this.#refused += 1;
  }

  #onConnection(socket: Socket): void {
    if (this.#sockets.size - this.#guests.size >= DATA_LIMITS.handshakes) {
      this.#count();
      // A reset: nothing lingers here for who opened too many.
      socket.resetAndDestroy();
      return;
    }
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    this.#tls.emit('connection', socket);
  }

  #onSecure(socket: TLSSocket): void {
    const certificate = socket.getPeerX509Certificate();
    const neighbour =
      certificate === undefined ? undefined : this.#directory.byFingerprint(fingerprintOf(certificate.raw));
    const theirs = neighbour === undefined ? 0 : (this.#perPeer.get(neighbour.id) ?? 0);
    if (neighbour === undefined || theirs >= DATA_LIMITS.connectionsPerPeer) {
      this.#count();
      socket.destroy();
      return;
    }
    const { id } = neighbour;
    this.#perPeer.set(id, theirs + 1);
    this.#guests.add(socket);
    socket.once('close', () => {
      this.#guests.delete(socket);
      const left = (this.#perPeer.get(id) ?? 1) - 1;
      if (left > 0) this.#perPeer.set(id, left);
      else this.#perPeer.delete(id);
    });
    this.#admitted(socket, neighbour);
  }
}
