import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FakeRegistry, Fault } from './registry.ts';

/** Injects faults into a `FakeRegistry` from another process. */
export interface RegistryControl {
  /** `127.0.0.1:port` */
  readonly host: string;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Faults as JSON: `path` is a regular expression's text; what needs code (`respond`) cannot be sent. */
const FAULT_KEYS: Readonly<Record<string, 'string' | 'number' | 'boolean' | 'object'>> = {
  ...{ path: 'string', method: 'string', times: 'number', delayMs: 'number', status: 'number', body: 'string' },
  ...{ headers: 'object', ignoreRange: 'boolean', noSuffix: 'boolean', wrongRange: 'boolean', truncateAt: 'number' },
  ...{ stallAt: 'number', extraBytes: 'number', corrupt: 'boolean', reset: 'boolean', redirectTo: 'string' },
};
const MAX_BODY_BYTES = 64 * 1024;

/**
 * Listens beside a registry double: `POST /control/faults` adds one, `DELETE /control/faults` ends all,
 * `DELETE /control/tokens` makes all tokens end, `GET /control/requests` tells what was asked.
 */
export async function startRegistryControl(registry: FakeRegistry): Promise<RegistryControl> {
  const server = createServer((request, response) => {
    answer(registry, request, response).catch((error: Error) => response.writeHead(400).end(error.message));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = async (): Promise<void> => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  const { port } = server.address() as AddressInfo;
  return { host: `127.0.0.1:${port}`, close, [Symbol.asyncDispose]: close };
}

async function answer(registry: FakeRegistry, request: IncomingMessage, response: ServerResponse): Promise<void> {
  switch (`${request.method} ${request.url}`) {
    case 'POST /control/faults':
      registry.inject(parseFault(await bodyOf(request)));
      break;
    case 'DELETE /control/faults':
      registry.heal();
      break;
    case 'DELETE /control/tokens':
      registry.revokeTokens();
      break;
    case 'GET /control/requests':
      response.setHeader('content-type', 'application/json').end(JSON.stringify(registry.requests));
      return;
    default:
      response.writeHead(404).end();
      return;
  }
  response.writeHead(204).end();
}

function parseFault(text: string): Fault {
  const json = JSON.parse(text) as Record<string, unknown>;
  for (const [key, value] of Object.entries(json)) {
    if (FAULT_KEYS[key] === undefined) throw new Error(`no fault ${key}`);
    if (typeof value !== FAULT_KEYS[key] || value === null) throw new Error(`${key} is not a ${FAULT_KEYS[key]}`);
  }
  const { path, ...rest } = json;
  return { ...rest, ...(path === undefined ? {} : { path: new RegExp(path as string) }) } as Fault;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of request) {
    text += String(part);
    if (text.length > MAX_BODY_BYTES) throw new Error('too long');
  }
  return text;
}
