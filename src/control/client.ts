import { request as httpRequest } from 'node:http';
import { ERROR_CODES, type ErrorCode, ShoalError } from '../errors.ts';
import { CONTROL_LIMITS } from './limits.ts';
import type { StatusReport } from './status.ts';

/** Talks to the daemon over its control socket. Every call throws UNAVAILABLE when no daemon answers. */
export interface ControlClient {
  status(options?: CallOptions): Promise<StatusReport>;
  health(options?: CallOptions): Promise<{ readonly status: string }>;
  /** The daemon's effective configuration. */
  config(options?: CallOptions): Promise<unknown>;
  /** Prometheus text. */
  metrics(options?: CallOptions): Promise<string>;
  /** Any route: the parsed JSON answer, or the error the daemon answered with, its code kept. */
  call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown, options?: CallOptions): Promise<unknown>;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** For the whole call (default: the server's deadline and a little more). */
  readonly timeoutMs?: number;
}

/** A client of the daemon that listens on `socket`. */
export function createControlClient(init: { socket: string }): ControlClient {
  const call: ControlClient['call'] = async (method, path, body, options = {}) => {
    const { status, text } = await exchange(init.socket, method, path, body, options);
    const value = parseJson(text, init.socket);
    if (status >= 400) throw asError(value, status);
    return value;
  };
  return {
    call,
    status: (options) => call('GET', '/v1/status', undefined, options) as Promise<StatusReport>,
    health: (options) => call('GET', '/v1/health', undefined, options) as Promise<{ status: string }>,
    config: (options) => call('GET', '/v1/config', undefined, options),
    async metrics(options = {}) {
      const { status, text } = await exchange(init.socket, 'GET', '/metrics', undefined, options);
      if (status >= 400) throw asError(parseJson(text, init.socket), status);
      return text;
    },
  };
}

function exchange(
  socket: string,
  method: string,
  path: string,
  body: unknown,
  options: CallOptions,
): Promise<{ status: number; text: string }> {
  const timeoutMs = options.timeoutMs ?? CONTROL_LIMITS.answerTimeoutMs + 1_000;
  const deadline = AbortSignal.timeout(timeoutMs);
  const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
  const payload = body === undefined ? undefined : JSON.stringify(body);
  // Without its length Node sends the body of a DELETE as if it were the next request.
  const headers =
    payload === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) };
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown): void => reject(explain(cause, socket, options.signal, deadline, timeoutMs));
    const call = httpRequest({ socketPath: socket, method, path, headers, signal, agent: false }, (response) => {
      const parts: Buffer[] = [];
      let size = 0;
      response.on('data', (part: Buffer) => {
        size += part.byteLength;
        if (size > CONTROL_LIMITS.answerBytes) {
          call.destroy(new ShoalError('TOO_LARGE', `the daemon's answer passes ${CONTROL_LIMITS.answerBytes} bytes`));
        }
        parts.push(part);
      });
      response.on('error', fail);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString() }));
    });
    call.on('error', fail);
    call.end(payload);
  });
}

function explain(
  cause: unknown,
  socket: string,
  signal: AbortSignal | undefined,
  deadline: AbortSignal,
  timeoutMs: number,
): unknown {
  if (cause instanceof ShoalError) return cause;
  if (signal?.aborted === true) return signal.reason;
  if (deadline.aborted) {
    return new ShoalError('DEADLINE_EXCEEDED', `the daemon on ${socket} did not answer in ${timeoutMs} ms`, { cause });
  }
  const code = (cause as NodeJS.ErrnoException).code;
  if (code === 'EACCES') {
    return new ShoalError('UNAVAILABLE', `no permission for ${socket}; run as the user the daemon runs as`, { cause });
  }
  const reason = code === 'ENOENT' ? 'there is no such socket' : (code ?? String(cause));
  return new ShoalError('UNAVAILABLE', `no daemon on ${socket} (${reason}); start it with: shoal serve`, { cause });
}

function parseJson(text: string, socket: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ShoalError('UNAVAILABLE', `what listens on ${socket} does not speak JSON`, { cause });
  }
}

function asError(value: unknown, status: number): ShoalError {
  const fields = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const { code, message, image, layer } = fields;
  const known = ERROR_CODES.find((one) => one === code);
  const fallback: ErrorCode = status === 404 ? 'NOT_FOUND' : 'UNAVAILABLE';
  return new ShoalError(known ?? fallback, typeof message === 'string' ? message : `the daemon answered ${status}`, {
    ...(typeof image === 'string' ? { image } : {}),
    ...(typeof layer === 'string' ? { layer } : {}),
  });
}
