/**
 * A double of the Dragonfly client (dfdaemon), for tests: a real HTTP server that behaves as its documentation and source
 * say (registry mirror, forward proxy, pieces, task ids, error types), with faults on demand. The real one is not
 * installable here. Run as a program it prints one JSON line `{"proxy":"http://…","health":"http://…"}`; faults are then
 * injected over the health port: `POST /control/faults`, `DELETE /control/faults`, `GET /control/requests`.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { sha256 } from '../../src/core/digest.ts';

/** What goes wrong with requests; the first fault that matches wins, `times` times (default: always). */
export interface DragonflyFault {
  /** Pattern of the path; default: blobs. */
  readonly path?: string;
  readonly times?: number;
  readonly delayMs?: number;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Send this many bytes of the body, then nothing more / then cut the connection. */
  readonly stallAt?: number;
  readonly truncateAt?: number;
  /** One byte of the body each time. */
  readonly dripMs?: number;
  /** Name another range than the one asked for. */
  readonly wrongRange?: boolean;
  /** Answer a range with 200 and the whole blob. */
  readonly ignoreRange?: boolean;
  readonly corrupt?: boolean;
  /** Cut the connection before any answer. */
  readonly reset?: boolean;
}

/** A request as it came in. */
export interface DragonflyRequestSeen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
}

const PIECE_BYTES = 4 * 1024 * 1024;

/** See the head of the file. */
export class FakeDragonfly {
  /** Every request to the proxy port, oldest first. */
  readonly requests: DragonflyRequestSeen[] = [];
  /** Pieces fetched from upstream, as `task/index`. */
  readonly piecesFetched: string[] = [];
  healthy = true;
  readonly #proxy: Server;
  readonly #health: Server;
  readonly #sockets = new Set<Socket>();
  readonly #sizes = new Map<string, number>();
  readonly #pieces = new Map<string, Promise<Uint8Array>>();
  readonly #faults: { fault: DragonflyFault; left: number }[] = [];

  private constructor() {
    this.#proxy = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
      this.#handle(request, response).catch((error) => this.#fail(response, 500, 'dfdaemon', String(error)));
    });
    this.#health = createServer((request, response) => void this.#control(request, response));
    for (const server of [this.#proxy, this.#health]) {
      server.on('connection', (socket) => {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => this.#sockets.delete(socket));
      });
    }
  }

  static async start(init: { port?: number } = {}): Promise<FakeDragonfly> {
    const double = new FakeDragonfly();
    await listen(double.#proxy, init.port ?? 0);
    await listen(double.#health, 0);
    return double;
  }

  get port(): number {
    return (this.#proxy.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get healthUrl(): string {
    return `http://127.0.0.1:${(this.#health.address() as AddressInfo).port}/healthy`;
  }

  inject(fault: DragonflyFault): void {
    this.#faults.push({ fault, left: fault.times ?? Number.POSITIVE_INFINITY });
  }

  heal(): void {
    this.#faults.length = 0;
    this.healthy = true;
  }

  /** Requests for blobs. */
  blobRequests(): DragonflyRequestSeen[] {
    return this.requests.filter(({ method, url }) => method === 'GET' && url.includes('/blobs/'));
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    for (const server of [this.#proxy, this.#health]) {
      if (server.listening) await new Promise((resolve) => server.close(resolve));
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = request;
    this.requests.push({ method, url, headers });
    const fault = this.#faultFor(url);
    if (fault.delayMs !== undefined) await sleep(fault.delayMs, undefined, { ref: false });
    if (fault.reset === true) return void request.socket.destroy();
    if (fault.status !== undefined) {
      response.writeHead(fault.status, { 'content-length': '0', ...fault.headers }).end();
      return;
    }
    const upstream = upstreamOf(url, headers);
    if (upstream === undefined) return this.#fail(response, 400, 'proxy', 'no upstream, or one without a scheme');
    const digest = /\/blobs\/(sha256:[0-9a-f]{64})$/.exec(upstream.pathname)?.[1];
    const p2p = method === 'GET' && (headers['x-dragonfly-use-p2p'] === 'true' || digest !== undefined);
    if (!p2p || digest === undefined) return await this.#pass(request, response, upstream);
    if (headers['x-dragonfly-priority'] === '1') return this.#fail(response, 403, 'proxy', 'priority 1 is forbidden');
    await this.#blob(request, response, { upstream, digest, fault });
  }

  async #blob(
    request: IncomingMessage,
    response: ServerResponse,
    { upstream, digest, fault }: { upstream: URL; digest: string; fault: DragonflyFault },
  ): Promise<void> {
    const { headers } = request;
    const byDigest = headers['x-dragonfly-enable-task-id-based-blob-digest'] === 'true';
    const task = byDigest
      ? digest
      : sha256(
          `${upstream.origin}${upstream.pathname}${headers['x-dragonfly-tag']}${headers['x-dragonfly-application']}`,
        );
    let size = this.#sizes.get(task);
    if (size === undefined) {
      const head = await fetch(upstream, { method: 'HEAD', headers: forwarded(headers) });
      if (!head.ok) return this.#fail(response, head.status, 'backend', '', head.headers.get('www-authenticate'));
      size = Number(head.headers.get('content-length'));
      this.#sizes.set(task, size);
    }
    const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? '') ?? [];
    const ranged = headers.range !== undefined && fault.ignoreRange !== true;
    const first = !ranged ? 0 : from === '' ? Math.max(0, size - Number(to)) : Number(from);
    const last = !ranged || from === '' || to === '' ? size - 1 : Math.min(Number(to), size - 1);
    const parts: Uint8Array[] = [];
    for (let index = Math.floor(first / PIECE_BYTES); index * PIECE_BYTES <= last; index += 1) {
      const start = index * PIECE_BYTES;
      const piece = await this.#piece(task, index, upstream, headers, size);
      parts.push(piece.subarray(Math.max(0, first - start), Math.min(piece.byteLength, last + 1 - start)));
    }
    const body = Buffer.concat(parts);
    if (fault.corrupt === true)
      for (let at = 1_000; at < body.length; at += 65_536) body[at] = (body[at] as number) ^ 1;
    const shift = fault.wrongRange === true ? 1 : 0;
    response.writeHead(ranged ? 206 : 200, {
      'content-length': `${body.length}`,
      'x-dragonfly-task-id': task,
      'x-dragonfly-task-download-finished': 'false',
      ...(ranged ? { 'content-range': `bytes ${first + shift}-${last + shift}/${size + shift}` } : {}),
      ...fault.headers,
    });
    await sendBody(response, body, fault);
  }

  #piece(
    task: string,
    index: number,
    upstream: URL,
    headers: IncomingMessage['headers'],
    size: number,
  ): Promise<Uint8Array> {
    const key = `${task}/${index}`;
    let piece = this.#pieces.get(key);
    if (piece === undefined) {
      this.piecesFetched.push(key);
      const start = index * PIECE_BYTES;
      const range = `bytes=${start}-${Math.min(size, start + PIECE_BYTES) - 1}`;
      piece = fetch(upstream, { headers: { ...forwarded(headers), range } }).then(async (answer) => {
        if (answer.status !== 206) throw new Error(`upstream answered ${answer.status}`);
        return new Uint8Array(await answer.arrayBuffer());
      });
      piece.catch(() => this.#pieces.delete(key));
      this.#pieces.set(key, piece);
    }
    return piece;
  }

  /** Manifests, HEAD and the like go straight to the registry. */
  async #pass(request: IncomingMessage, response: ServerResponse, upstream: URL): Promise<void> {
    const { method = 'GET', headers } = request;
    const range = headers.range === undefined ? {} : { range: headers.range };
    const answer = await fetch(upstream, { method, headers: { ...forwarded(headers), ...range }, redirect: 'manual' });
    const body = Buffer.from(await answer.arrayBuffer());
    const kept = ['content-type', 'docker-content-digest', 'content-range', 'www-authenticate', 'content-length'];
    const out = Object.fromEntries(
      kept.flatMap((name) => {
        const value = answer.headers.get(name);
        return value === null ? [] : [[name, value]];
      }),
    );
    const type = answer.ok ? {} : { 'x-dragonfly-error-type': 'backend' };
    response.writeHead(answer.status, { ...out, ...type }).end(body);
  }

  #fail(response: ServerResponse, status: number, type: string, message: string, challenge?: string | null): void {
    if (response.headersSent) return void response.destroy();
    const authenticate = challenge === undefined || challenge === null ? {} : { 'www-authenticate': challenge };
    response.writeHead(status, { 'x-dragonfly-error-type': type, ...authenticate }).end(message);
  }

  #faultFor(url: string): DragonflyFault {
    const entry = this.#faults.find(({ fault, left }) => left > 0 && new RegExp(fault.path ?? '/blobs/').test(url));
    if (entry !== undefined) entry.left -= 1;
    return entry?.fault ?? {};
  }

  async #control(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const what = `${request.method} ${request.url}`;
    if (what === 'GET /healthy') return void response.writeHead(this.healthy ? 200 : 500).end();
    if (what === 'GET /control/requests') return void response.end(JSON.stringify(this.requests));
    if (what === 'DELETE /control/faults') this.heal();
    else if (what === 'POST /control/faults') {
      let text = '';
      for await (const part of request) text += String(part);
      this.inject(JSON.parse(text) as DragonflyFault);
    } else return void response.writeHead(404).end();
    response.end();
  }
}

/** As dfdaemon finds it: the URL's own host (forward proxy), the header, `ns`. */
function upstreamOf(url: string, headers: IncomingMessage['headers']): URL | undefined {
  if (!url.startsWith('/')) return new URL(url);
  const asked = new URL(url, 'http://mirror.invalid');
  const ns = asked.searchParams.get('ns') ?? 'https://index.docker.io';
  const header = headers['x-dragonfly-registry'];
  const registry = typeof header === 'string' ? header : ns.includes('://') ? ns : `https://${ns}`;
  if (!/^https?:\/\//.test(registry)) return undefined;
  return new URL(asked.pathname, registry);
}

/** dfdaemon copies the caller's headers; of those only these matter to a registry. */
function forwarded(headers: IncomingMessage['headers']): Record<string, string> {
  const out: Record<string, string> = { 'accept-encoding': 'identity' };
  if (headers.authorization !== undefined) out.authorization = headers.authorization;
  if (headers.accept !== undefined) out.accept = headers.accept;
  return out;
}

async function sendBody(response: ServerResponse, body: Buffer, fault: DragonflyFault): Promise<void> {
  if (fault.stallAt !== undefined) return void response.write(body.subarray(0, fault.stallAt));
  if (fault.truncateAt !== undefined) {
    return void response.write(body.subarray(0, fault.truncateAt), () => response.socket?.destroySoon());
  }
  if (fault.dripMs !== undefined) {
    for (let at = 0; at < body.length && !response.destroyed; at += 1) {
      response.write(body.subarray(at, at + 1));
      await sleep(fault.dripMs, undefined, { ref: false });
    }
  }
  response.end(fault.dripMs === undefined ? body : undefined);
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
}

if (import.meta.main) {
  const double = await FakeDragonfly.start({ port: Number(process.argv[2] ?? 0) });
  process.stdout.write(`${JSON.stringify({ proxy: double.url, health: double.healthUrl })}\n`);
}
