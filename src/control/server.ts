import { rmSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type ErrorCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { METRICS_CONTENT_TYPE, type MetricsRegistry } from '../metrics.ts';
import { listenPrivately } from '../unix-socket.ts';
import { CONTROL_LIMITS } from './limits.ts';
import type { StatusSource } from './status.ts';

/** One request the control socket answers. */
export interface ControlRoute {
  readonly method: 'GET' | 'POST' | 'DELETE';
  readonly path: string;
  /** Default: CONTROL_LIMITS.answerTimeoutMs. */
  readonly timeoutMs?: number;
  /** Answers with a value that becomes JSON, or with text. `body` is the parsed JSON body, undefined without one. */
  handle(request: { body: unknown; query: URLSearchParams; signal: AbortSignal }): unknown;
}

/** Text that is sent as it is. */
export interface TextAnswer {
  readonly contentType: string;
  readonly text: string;
}

/** A running control server. */
export interface ControlServer {
  /** Lets answers under way end for a moment, closes every connection and removes the socket. Idempotent. */
  stop(): Promise<void>;
}

/** What the control server works with; `config` is what GET /v1/config shows and must hold no secret. */
export interface ControlComponents {
  readonly source: StatusSource;
  readonly metrics: MetricsRegistry;
  readonly config: unknown;
  readonly log: Logger;
  /** Routes of the daemon beyond the built-in ones. */
  readonly routes?: readonly ControlRoute[];
}

const HTTP_STATUS: Partial<Record<ErrorCode, number>> = {
  INVALID_ARGUMENT: 400,
  INVALID_REFERENCE: 400,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  FAILED_PRECONDITION: 409,
  TOO_LARGE: 413,
  UNAVAILABLE: 503,
  DEADLINE_EXCEEDED: 504,
};

/** Serves the control API on the unix socket `socket`, for its owner only. Throws what `listenPrivately` throws. */
export async function startControlServer(
  components: ControlComponents,
  init: { socket: string },
): Promise<ControlServer> {
  const routes = [...builtInRoutes(components), ...(components.routes ?? [])];
  const server = createServer((request, response) => void answer(routes, components.log, request, response));
  server.requestTimeout = CONTROL_LIMITS.requestTimeoutMs;
  server.headersTimeout = CONTROL_LIMITS.requestTimeoutMs;
  server.maxConnections = CONTROL_LIMITS.connections;
  await listenPrivately(server, init.socket);
  return {
    async stop() {
      if (!server.listening) return;
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      // Whoever asked for the end is told that it came.
      const cut = setTimeout(() => server.closeAllConnections(), CONTROL_LIMITS.stopGraceMs);
      await closed;
      clearTimeout(cut);
      rmSync(init.socket, { force: true });
    },
  };
}

function builtInRoutes({ source, metrics, config }: ControlComponents): ControlRoute[] {
  return [
    { method: 'GET', path: '/v1/health', handle: () => ({ status: 'ok' }) },
    { method: 'GET', path: '/v1/status', handle: ({ signal }) => source.status({ signal }) },
    { method: 'GET', path: '/v1/config', handle: () => config },
    {
      method: 'GET',
      path: '/metrics',
      handle: (): TextAnswer => ({ contentType: METRICS_CONTENT_TYPE, text: metrics.render() }),
    },
  ];
}

async function answer(
  routes: readonly ControlRoute[],
  log: Logger,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const over = new AbortController();
  response.once('close', () => over.abort(new ShoalError('UNAVAILABLE', 'the caller went away')));
  try {
    const [path, search] = (request.url ?? '').split('?', 2);
    const atPath = routes.filter((route) => route.path === path);
    const route = atPath.find(({ method }) => method === request.method);
    if (route === undefined) {
      if (atPath.length > 0) response.setHeader('allow', atPath.map(({ method }) => method).join(', '));
      const code = atPath.length > 0 ? 'METHOD_NOT_ALLOWED' : 'NOT_FOUND';
      return send(response, atPath.length > 0 ? 405 : 404, { code, message: `no ${request.method} ${path}` });
    }
    const body = await readBody(request);
    send(response, 200, await withDeadline(route, { body, query: new URLSearchParams(search) }, over));
  } catch (error) {
    const known = error instanceof ShoalError ? error : undefined;
    if (known === undefined) log.error('a control request failed', { url: request.url, error: String(error) });
    const status = (known === undefined ? undefined : HTTP_STATUS[known.code]) ?? 500;
    const code = known?.code ?? 'INTERNAL';
    const { image, layer } = known?.context ?? {};
    send(response, status, { code, message: known?.message ?? 'internal error; see the daemon’s log', image, layer });
  }
}

async function withDeadline(
  route: ControlRoute,
  request: { body: unknown; query: URLSearchParams },
  over: AbortController,
): Promise<unknown> {
  const timeoutMs = route.timeoutMs ?? CONTROL_LIMITS.answerTimeoutMs;
  const late = new ShoalError('DEADLINE_EXCEEDED', `${route.path} took longer than ${timeoutMs} ms`);
  const timer = setTimeout(() => over.abort(late), timeoutMs);
  try {
    const ended = new Promise<never>((_, reject) => {
      over.signal.addEventListener('abort', () => reject(over.signal.reason), { once: true });
    });
    return await Promise.race([route.handle({ ...request, signal: over.signal }), ended]);
  } finally {
    clearTimeout(timer);
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.byteLength;
    if (size > CONTROL_LIMITS.requestBytes) throw new ShoalError('TOO_LARGE', 'the request body is too large');
    parts.push(part);
  }
  if (size === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(parts).toString());
  } catch (cause) {
    throw new ShoalError('INVALID_ARGUMENT', 'the request body is not JSON', { cause });
  }
}

function send(response: ServerResponse, status: number, value: unknown): void {
  if (response.headersSent || response.destroyed) return;
  const isText = typeof value === 'object' && value !== null && 'contentType' in value && 'text' in value;
  const { contentType, text } = isText
    ? (value as TextAnswer)
    : { contentType: 'application/json', text: `${JSON.stringify(value ?? null)}\n` };
  response.writeHead(status, { 'content-type': contentType, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
