import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  constants,
  createServer,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { RememberedCredentials } from '../source/origin/remembered-credentials.ts';
import { listenPrivately } from '../unix-socket.ts';
import { parsePullRequest } from './pull-request.ts';

/** Limits of the image socket: kubelet has one connection and a few calls at a time. */
const IMAGE_PROXY_LIMITS = {
  connections: 32,
  streamsPerConnection: 100,
  /** A PullImage with the pod's whole sandbox configuration has some KiB; a larger one is passed on unread. */
  pullRequestBytes: 1024 * 1024,
} as const;

/** Services of the CRI that are passed on; the runtime service is not kubelet's to ask here. */
const SERVICES = /^\/runtime\.(?:v1|v1alpha2)\.ImageService\/([A-Za-z]+)$/;

const GRPC_UNIMPLEMENTED = 12;
const GRPC_UNAVAILABLE = 14;

/** The image service that kubelet talks to. */
export interface ImageProxy {
  /** Cuts the calls under way and removes the socket. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Serves the CRI image service on a unix socket by passing each call on to containerd as it is, byte for byte, whatever
 * version of the CRI both speak. Credentials of pulls are remembered in `pulls`, and those of pulls that failed taken
 * back. Throws what `listenPrivately` throws, and CONFIG_INVALID for two sockets that are one.
 */
export async function serveImageProxy(
  components: { readonly pulls: RememberedCredentials; readonly log: Logger },
  init: { readonly socket: string; readonly containerdSocket: string },
): Promise<ImageProxy> {
  if (init.socket === init.containerdSocket) {
    throw new ShoalError('CONFIG_INVALID', `cri.socket and cri.containerd_socket are both ${init.socket}`);
  }
  const upstream = createUpstream(init.containerdSocket);
  const { log } = components;
  const sessions = new Set<ServerHttp2Session>();
  const server = createServer({ settings: { maxConcurrentStreams: IMAGE_PROXY_LIMITS.streamsPerConnection } });
  server.maxConnections = IMAGE_PROXY_LIMITS.connections;
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
    session.on('error', () => {});
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => {});
    void passOn(stream, headers, upstream, components).catch((error: Error) => {
      log.debug('a call to the image service failed', { path: headers[':path'], error: error.message });
      answerStatus(stream, GRPC_UNAVAILABLE, `containerd does not answer on ${init.containerdSocket}`);
    });
  });
  await listenPrivately(server, init.socket);
  server.on('error', (error) => log.error('the image socket failed', { error: error.message }));

  let closing: Promise<void> | undefined;
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const session of sessions) session.destroy();
    upstream.close();
    await closed;
  };
  const closeOnce = (): Promise<void> => {
    closing ??= close();
    return closing;
  };
  return { close: closeOnce, [Symbol.asyncDispose]: closeOnce };
}

interface Upstream {
  request(headers: OutgoingHttpHeaders): ClientHttp2Stream;
  close(): void;
}

/** One connection to containerd, made when it is needed and anew after it broke. */
function createUpstream(socket: string): Upstream {
  let session: ClientHttp2Session | undefined;

  function open(): ClientHttp2Session {
    const made = connect('http://localhost', { createConnection: () => connectSocket(socket) });
    const drop = (): void => {
      if (session === made) session = undefined;
    };
    made.on('error', drop);
    made.on('goaway', drop);
    made.on('close', drop);
    made.unref();
    return made;
  }

  return {
    request(headers) {
      if (session === undefined || session.closed || session.destroyed) session = open();
      return session.request(headers);
    },
    close() {
      session?.destroy();
    },
  };
}

async function passOn(
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  upstream: Upstream,
  components: { readonly pulls: RememberedCredentials; readonly log: Logger },
): Promise<void> {
  const method = SERVICES.exec(headers[':path'] ?? '')?.[1];
  if (method === undefined || headers[':method'] !== 'POST') {
    answerStatus(stream, GRPC_UNIMPLEMENTED, 'only the image service of the CRI is served here');
    return;
  }
  let takeBack: (() => void) | undefined;
  let head: Buffer[] = [];
  if (method === 'PullImage') {
    head = await readHead(stream, IMAGE_PROXY_LIMITS.pullRequestBytes);
    // Before containerd hears of it: it will soon ask us for the layers.
    takeBack = remember(Buffer.concat(head), components);
  }
  const call = upstream.request(forwarded(headers));
  for (const part of head) call.write(part);
  if (stream.readableEnded) call.end();
  else stream.pipe(call);
  await relay(stream, call, (status) => {
    if (status !== '0') takeBack?.();
  });
}

/** Answers `stream` with what comes from `call`; rejects when that fails before it says anything. */
function relay(stream: ServerHttp2Stream, call: ClientHttp2Stream, ended: (status: string) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let trailers: IncomingHttpHeaders = {};
    let status: string | undefined;
    call.on('response', (headers, flags) => {
      if (stream.destroyed) return;
      const plain = withoutPseudo(headers);
      const isAll = (flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0;
      status = headerText(headers['grpc-status']);
      stream.respond(
        { ':status': headers[':status'], ...plain },
        isAll ? { endStream: true } : { waitForTrailers: true },
      );
      if (!isAll) call.pipe(stream);
    });
    call.on('trailers', (given) => {
      trailers = withoutPseudo(given);
      status = headerText(given['grpc-status']) ?? status;
    });
    stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    stream.on('close', () => {
      if (!call.closed) call.close(constants.NGHTTP2_CANCEL);
    });
    call.on('error', reject);
    call.on('close', () => {
      ended(status ?? 'unknown');
      if (!stream.headersSent) reject(new Error(`the call ended with HTTP/2 code ${call.rstCode}`));
      else if (status === undefined && !stream.closed) stream.close(call.rstCode || constants.NGHTTP2_INTERNAL_ERROR);
      resolve();
    });
    if (stream.destroyed) call.close(constants.NGHTTP2_CANCEL);
  });
}

/** All of the request's body, or as much as came before it was more than `most`; what follows stays in the stream. */
async function readHead(stream: ServerHttp2Stream, most: number): Promise<Buffer[]> {
  const parts: Buffer[] = [];
  let bytes = 0;
  await new Promise<void>((resolve, reject) => {
    const onData = (part: Buffer): void => {
      parts.push(part);
      bytes += part.byteLength;
      if (bytes <= most) return;
      stream.pause();
      done();
    };
    const done = (): void => {
      stream.off('data', onData);
      resolve();
    };
    stream.on('data', onData);
    stream.once('end', done);
    stream.once('aborted', () => reject(new Error('the client went away')));
  });
  return parts;
}

/** Remembers the credential of a PullImage call (one gRPC frame); gives what takes it back. */
function remember(
  body: Buffer,
  { pulls, log }: { readonly pulls: RememberedCredentials; readonly log: Logger },
): (() => void) | undefined {
  const isWhole = body.byteLength >= 5 && body[0] === 0 && body.readUInt32BE(1) === body.byteLength - 5;
  if (!isWhole) return undefined;
  try {
    const pull = parsePullRequest(body.subarray(5));
    if (pull === undefined) return undefined;
    return pulls.remember(pull.reference.registry, pull.reference.repository, pull.credential);
  } catch (error) {
    // containerd will say what is wrong with it.
    log.debug('a pull could not be understood', { why: error instanceof ShoalError ? error.code : String(error) });
    return undefined;
  }
}

function forwarded(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  return {
    ':method': 'POST',
    ':path': headers[':path'],
    ':scheme': 'http',
    ':authority': 'localhost',
    ...withoutPseudo(headers),
  };
}

function withoutPseudo(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !name.startsWith(':') && name !== 'host'));
}

function headerText(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}

function answerStatus(stream: ServerHttp2Stream, status: number, message: string): void {
  if (stream.destroyed) return;
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  const headers = {
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': status,
    'grpc-message': message,
  };
  stream.respond(headers, { endStream: true });
}
