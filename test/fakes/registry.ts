import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Digest, digestHex, parseDigest, sha256 } from '../../src/core/digest.ts';
import { assertCanaries, ownsSecrets } from '../canary/owner.ts';

/**
 * What goes wrong with a request. All that are given apply; a fault counts for `times` matching requests (default: all)
 * and the first matching fault wins.
 */
export interface Fault {
  /** Which paths; default: all below /v2/. */
  readonly path?: RegExp;
  readonly method?: string;
  readonly times?: number;
  /** Wait before answering. */
  readonly delayMs?: number;
  /** Answer with this status, and `body`. */
  readonly status?: number;
  readonly body?: Uint8Array | string;
  /** Set or replace response headers; undefined leaves one out. */
  readonly headers?: Readonly<Record<string, string | string[] | undefined>>;
  /** Answer a range with all of the blob and 200. */
  readonly ignoreRange?: boolean;
  /** Answer a range with the one behind it. */
  readonly wrongRange?: boolean;
  /** Answer suffix ranges (`bytes=-n`) with 416, as servers do that don't know them. */
  readonly noSuffix?: boolean;
  /** Send this many bytes of the body, then cut the connection. */
  readonly truncateAt?: number;
  /** Send this many bytes of the body, then nothing more. */
  readonly stallAt?: number;
  /** Append bytes that were not announced; the body is then sent chunked. */
  readonly extraBytes?: number;
  /** Flip one bit of the body's first byte. */
  readonly corrupt?: boolean;
  /** Cut the connection before any answer. */
  readonly reset?: boolean;
  /** Answer 307 to this address; `{path}` stands for the path asked for. */
  readonly redirectTo?: string;
  /** Take over entirely. */
  readonly respond?: (request: IncomingMessage, response: ServerResponse) => void;
}

/** Who may read: a Bearer flow with tokens of our own, or Basic. */
export interface FakeAuth {
  readonly scheme: 'bearer' | 'basic';
  /** Without them every token request is granted. */
  readonly username?: string;
  readonly password?: string;
  /** Accepted as refresh token of `POST /token`. */
  readonly identityToken?: string;
  readonly expiresInSec?: number;
  /** Named in the challenge; default: our own `/token`. */
  readonly realm?: string;
  /** The whole WWW-Authenticate header, in place of the usual one. */
  readonly challenge?: string | string[];
}

/** A request as it came in. */
export interface FakeRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
}

/** A registry (distribution spec, pull) with content in memory, real ranges, and faults on demand. */
export class FakeRegistry {
  readonly #server: Server;
  readonly #blobs = new Map<string, Uint8Array>();
  readonly #manifests = new Map<string, { bytes: Uint8Array; mediaType: string }>();
  readonly #faults: { fault: Fault; left: number }[] = [];
  readonly #tokens = new Set<string>();
  readonly #sockets = new Set<Socket>();
  #issued = 0;
  /** Everything asked, oldest first. */
  readonly requests: FakeRequest[] = [];
  #auth: FakeAuth | undefined;

  private constructor(server: Server) {
    this.#server = server;
    server.on('request', (request, response) => {
      // A client that goes away in the middle is its own business.
      this.#handle(request, response).catch(() => response.destroy());
    });
    server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#sockets.delete(socket));
    });
  }

  /** Listens on a free loopback port, or where it is told. */
  static async start(init: { auth?: FakeAuth; address?: string; port?: number } = {}): Promise<FakeRegistry> {
    const server = createServer({ keepAliveTimeout: 60_000 });
    const registry = new FakeRegistry(server);
    await new Promise<void>((resolve) => server.listen(init.port ?? 0, init.address ?? '127.0.0.1', resolve));
    registry.auth = init.auth;
    return registry;
  }

  /** `127.0.0.1:port`: the registry part of a reference. */
  get host(): string {
    const { address, port } = this.#server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  get auth(): FakeAuth | undefined {
    return this.#auth;
  }

  /** Change it at any time. */
  set auth(auth: FakeAuth | undefined) {
    assertCanaries(auth?.password, auth?.identityToken);
    if (auth !== undefined) ownsSecrets(this.host);
    this.#auth = auth;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#sockets.size;
  }

  /** Blobs belong to all repositories. */
  addBlob(bytes: Uint8Array): Digest {
    const digest = sha256(bytes);
    this.#blobs.set(digest, bytes);
    return digest;
  }

  addManifest(repository: string, tag: string | undefined, manifest: unknown, mediaType?: string): Digest {
    const bytes = manifest instanceof Uint8Array ? manifest : Buffer.from(JSON.stringify(manifest));
    const own = mediaType ?? (JSON.parse(Buffer.from(bytes).toString()) as { mediaType: string }).mediaType;
    const digest = sha256(bytes);
    for (const name of [digest, tag]) this.#manifests.set(`${repository}/${name}`, { bytes, mediaType: own });
    return digest;
  }

  /** Takes in the first manifest of an OCI layout directory with its blobs; gives the manifest's digest. */
  addOciLayout(directory: string, repository: string, tag: string): Digest {
    const read = (digest: string): Buffer =>
      readFileSync(join(directory, 'blobs/sha256', digestHex(parseDigest(digest))));
    const index = JSON.parse(readFileSync(join(directory, 'index.json'), 'utf8')) as {
      manifests: { digest: string }[];
    };
    const bytes = read(index.manifests[0]?.digest ?? '');
    const manifest = JSON.parse(bytes.toString()) as { config: { digest: string }; layers: { digest: string }[] };
    for (const { digest } of [manifest.config, ...manifest.layers]) this.addBlob(read(digest));
    return this.addManifest(repository, tag, bytes);
  }

  /** Makes requests fail from now on. */
  inject(fault: Fault): void {
    this.#faults.push({ fault, left: fault.times ?? Number.POSITIVE_INFINITY });
  }

  /** Ends all faults. */
  heal(): void {
    this.#faults.length = 0;
  }

  /** Tokens handed out so far stop working. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** Requests below `/v2/`, or to another path prefix. */
  count(prefix = '/v2/'): number {
    return this.requests.filter(({ path }) => path.startsWith(prefix)).length;
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    this.requests.push({ method: request.method ?? '', path, headers: request.headers });
    const fault = this.#faultFor(request.method ?? '', path) ?? {};
    if (fault.delayMs !== undefined) await sleep(fault.delayMs, undefined, { ref: false });
    if (fault.reset === true) {
      request.socket.destroy();
      return;
    }
    if (fault.respond !== undefined) {
      fault.respond(request, response);
    } else if (fault.status !== undefined || fault.redirectTo !== undefined) {
      const to = fault.redirectTo?.replace('{path}', path);
      const body = Buffer.from(fault.body ?? '');
      send(
        response,
        fault.status ?? 307,
        { 'content-length': `${body.byteLength}`, ...(to === undefined ? {} : { location: to }) },
        body,
        fault,
      );
    } else if (path.startsWith('/token')) {
      await this.#token(request, response);
    } else if (!this.#allowed(request)) {
      send(response, 401, { 'www-authenticate': this.#challenge(), 'content-length': '0' }, Buffer.alloc(0), fault);
    } else {
      this.#content(request, response, path, fault);
    }
  }

  #faultFor(method: string, path: string): Fault | undefined {
    const entry = this.#faults.find(
      ({ fault, left }) =>
        left > 0 && (fault.path ?? /^\/v2\//).test(path) && (fault.method === undefined || fault.method === method),
    );
    if (entry !== undefined) entry.left -= 1;
    return entry?.fault;
  }

  #content(request: IncomingMessage, response: ServerResponse, path: string, fault: Fault): void {
    const [, repository, kind, name] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/?]+)/.exec(path) ?? [];
    const manifest = this.#manifests.get(`${repository}/${name}`);
    const bytes = kind === 'manifests' ? manifest?.bytes : this.#blobs.get(name ?? '');
    if (path === '/v2/') send(response, 200, {}, Buffer.alloc(0), fault);
    else if (bytes === undefined) send(response, 404, { 'content-length': '0' }, Buffer.alloc(0), fault);
    else if (kind === 'manifests') {
      const headers = { 'content-type': manifest?.mediaType ?? '', 'docker-content-digest': sha256(bytes) };
      sendBody(request, response, 200, headers, bytes, fault);
    } else sendRange(request, response, bytes, fault);
  }

  #allowed(request: IncomingMessage): boolean {
    if (this.auth === undefined) return true;
    const given = request.headers.authorization ?? '';
    if (this.auth.scheme === 'basic') return given === basic(this.auth);
    return this.#tokens.has(given.replace(/^Bearer /, ''));
  }

  #challenge(): string | string[] {
    if (this.auth?.challenge !== undefined) return this.auth.challenge;
    if (this.auth?.scheme === 'basic') return 'Basic realm="fake, \\"registry\\""';
    const realm = this.auth?.realm ?? `http://${this.host}/token`;
    return `Bearer realm="${realm}",service="fake",scope="repository:any/thing:pull,push"`;
  }

  async #token(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = '';
    for await (const part of request) body += String(part);
    const form = new URLSearchParams(body);
    const { username, identityToken } = this.auth ?? {};
    const granted =
      request.method === 'POST'
        ? form.get('refresh_token') === identityToken && identityToken !== undefined
        : username === undefined || request.headers.authorization === basic(this.auth as FakeAuth);
    if (!granted) {
      response.writeHead(401).end();
      return;
    }
    this.#issued += 1;
    const token = `canary-token-${this.#issued}`;
    this.#tokens.add(token);
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ token, expires_in: this.auth?.expiresInSec ?? 300 }));
  }
}

function basic({ username, password }: FakeAuth): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

function sendRange(request: IncomingMessage, response: ServerResponse, bytes: Uint8Array, fault: Fault): void {
  const total = bytes.byteLength;
  const [, from, to] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '') ?? [];
  if (from === undefined || to === undefined || fault.ignoreRange === true) {
    sendBody(request, response, 200, { 'accept-ranges': 'bytes' }, bytes, fault);
    return;
  }
  const first = from === '' ? Math.max(0, total - Number(to)) : Number(from);
  const last = from === '' || to === '' ? total - 1 : Math.min(Number(to), total - 1);
  if (first > last || (from === '' && fault.noSuffix === true)) {
    sendBody(request, response, 416, { 'content-range': `bytes */${total}` }, new Uint8Array(0), fault);
    return;
  }
  const by = fault.wrongRange === true ? 1 : 0;
  const part = bytes.subarray(first + by, last + by + 1);
  sendBody(request, response, 206, { 'content-range': `bytes ${first + by}-${last + by}/${total}` }, part, fault);
}

function sendBody(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  headers: Record<string, string>,
  body: Uint8Array,
  fault: Fault,
): void {
  const length = fault.extraBytes === undefined ? { 'content-length': `${body.byteLength}` } : {};
  send(response, status, { ...headers, ...length }, request.method === 'HEAD' ? new Uint8Array(0) : body, fault);
}

function send(
  response: ServerResponse,
  status: number,
  headers: Record<string, string | string[]>,
  body: Uint8Array,
  fault: Fault,
): void {
  response.statusCode = status;
  for (const [name, value] of Object.entries({ ...headers, ...fault.headers })) {
    if (value !== undefined) response.setHeader(name, value);
  }
  let bytes = body;
  if (fault.corrupt === true && bytes.byteLength > 0) {
    bytes = Uint8Array.from(bytes);
    bytes[0] = (bytes[0] as number) ^ 1;
  }
  if (fault.extraBytes !== undefined) {
    bytes = Buffer.concat([bytes, Buffer.alloc(fault.extraBytes)]);
    response.flushHeaders(); // Without it Node would announce the length after all.
  }
  if (fault.stallAt !== undefined) {
    response.flushHeaders();
    response.write(bytes.subarray(0, fault.stallAt));
  } else if (fault.truncateAt !== undefined) {
    response.flushHeaders();
    response.write(bytes.subarray(0, fault.truncateAt), () => response.socket?.destroySoon());
  } else {
    response.end(bytes);
  }
}
