/**
 * Loaded into every Node process of a test run (`--import`), shoal's own daemons and commands included: looks for secrets
 * of tests in all that leaves through HTTP clients, reaches HTTP servers, goes to peers over libp2p, and, of shoal itself,
 * in all that it logs, prints and answers.
 */
import crypto, { type CipherGCM } from 'node:crypto';
import { subscribe } from 'node:diagnostics_channel';
import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { hasCanary } from './needles.ts';
import { recordCanary } from './records.ts';

const SHOAL = /\/(src\/main\.ts|dist\/main\.js|bin\/shoal)$/;
const watched = new Set<string>();

function watching(what: string): void {
  if (watched.has(what)) return;
  watched.add(what);
  recordCanary({ kind: 'watched', what });
}

watchClients();
watchServers();
watchPeers();
if (SHOAL.test(process.argv[1] ?? '')) {
  watchWrites(process.stdout, 'standard output');
  watchWrites(process.stderr, 'log');
  watchAnswers();
}

/** Requests of undici, to which every client of shoal comes down, and of `fetch`: head and body. */
function watchClients(): void {
  const ports = new WeakMap<object, number>();
  const saw = (port: number | undefined, text: string | Uint8Array): void => {
    watching('requests made');
    if (port !== undefined && hasCanary(text)) recordCanary({ kind: 'seen', port, where: 'in a request' });
  };
  subscribe('undici:client:sendHeaders', (message) => {
    const { request, headers, socket } = message as { request: object; headers: string; socket: Socket };
    // None at a Unix socket, which leads to nobody on another host.
    if (socket.remotePort === undefined) return;
    ports.set(request, socket.remotePort);
    saw(socket.remotePort, `${headers}${(request as { path?: string }).path ?? ''}`);
  });
  subscribe('undici:request:bodyChunkSent', (message) => {
    const { request, chunk } = message as { request: object; chunk: string | Uint8Array };
    saw(ports.get(request), chunk);
  });
}

/** Requests as the doubles of registries and mirrors, recording servers and shoal's chunk server get them. */
function watchServers(): void {
  subscribe('http.server.request.start', (message) => {
    const { request, socket } = message as { request: IncomingMessage; socket: Socket };
    watching('requests served');
    const text = [request.url ?? '', ...request.rawHeaders].join('\n');
    const { localPort } = socket;
    if (localPort !== undefined && hasCanary(text)) {
      recordCanary({ kind: 'seen', port: localPort, where: 'in a request as its server got it' });
    }
  });
}

/** What noise encrypts, which is all that a peer gets to read over libp2p. */
function watchPeers(): void {
  const original = crypto.createCipheriv;
  const watchedCipher = (...args: Parameters<typeof original>): ReturnType<typeof original> => {
    const cipher = original(...args);
    if (String(args[0]) !== 'chacha20-poly1305') return cipher;
    watching('peer streams');
    const update = cipher.update.bind(cipher) as CipherGCM['update'];
    cipher.update = ((data: string | Uint8Array, ...rest: []) => {
      if (hasCanary(data)) recordCanary({ kind: 'leak', where: 'on a stream to a peer' });
      return update(data as Uint8Array, ...rest);
    }) as typeof cipher.update;
    return cipher;
  };
  crypto.createCipheriv = watchedCipher as typeof original;
}

type Write = (chunk: string | Uint8Array, ...rest: unknown[]) => boolean;

function watchWrites(stream: NodeJS.WriteStream, where: string): void {
  const write = stream.write.bind(stream) as Write;
  stream.write = ((chunk, ...rest) => {
    watching(where);
    if (hasCanary(chunk)) recordCanary({ kind: 'leak', where: `in shoal's ${where}` });
    return write(chunk, ...rest);
  }) as typeof stream.write;
}

/** Status, metrics, explanations, errors, chunks. */
function watchAnswers(): void {
  const saw = (chunk: unknown): void => {
    if (typeof chunk !== 'string' && !(chunk instanceof Uint8Array)) return;
    watching('answers');
    if (hasCanary(chunk)) recordCanary({ kind: 'leak', where: "in an answer of shoal's" });
  };
  for (const name of ['write', 'end'] as const) {
    const original = ServerResponse.prototype[name] as (...args: unknown[]) => never;
    ServerResponse.prototype[name] = function watchedWrite(this: ServerResponse, ...args: unknown[]): never {
      saw(args[0]);
      return original.apply(this, args);
    };
  }
}
