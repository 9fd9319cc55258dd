import { randomBytes } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Digest } from '../../src/core/digest.ts';
import { makeTlsIdentity, type TlsIdentity } from '../../src/source/peer/data/identity.ts';
import type { HaveMap, Neighbour } from '../../src/source/peer/directory.ts';
import { createMemoryDirectory, type MemoryDirectory, type MemoryHub } from '../../src/source/peer/memory-directory.ts';

/** How a neighbour can misbehave once it is asked for a chunk it said it has. */
export type Misdeed =
  | 'wrong bytes'
  | 'another length'
  | 'truncation'
  | 'one byte a second'
  | 'reset in the middle'
  | 'silence'
  | 'a redirect'
  | 'endless headers'
  | 'another certificate';

/** A member of a swarm that claims to hold every row of a blob, and then does what it was made for. */
export interface HostileNeighbour extends AsyncDisposable {
  readonly self: Neighbour;
  readonly directory: MemoryDirectory;
  /** Requests it was sent. */
  readonly asked: () => number;
}

/** Joins the hub. `length`: of every chunk it is asked for. */
export async function startHostileNeighbour(
  hub: MemoryHub,
  init: { misdeed: Misdeed; rows: number; length: number; announces?: readonly Digest[] },
): Promise<HostileNeighbour> {
  const { misdeed, rows, length } = init;
  const identity = makeTlsIdentity();
  const shown: TlsIdentity = misdeed === 'another certificate' ? makeTlsIdentity() : identity;
  let asked = 0;
  const timers = new Set<NodeJS.Timeout>();
  const sockets = new Set<Socket>();
  const server = createServer(
    { key: shown.key, cert: shown.cert, requestCert: true, rejectUnauthorized: false },
    (_request, response) => {
      asked += 1;
      response.on('error', () => {});
      misbehave(misdeed, response, { length, timers });
    },
  );
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const self: Neighbour = {
    id: `hostile-${randomBytes(6).toString('hex')}`,
    address: '127.0.0.1',
    dataPort: (server.address() as AddressInfo).port,
    fingerprint: identity.fingerprint,
    zone: '',
  };
  const map: HaveMap = { rows, bits: new Uint8Array(Math.ceil(rows / 8)).fill(0xff) };
  const held = { haveMap: () => map, async *all() {} };
  const directory = createMemoryDirectory({ hub, held }, { self });
  if (init.announces !== undefined) directory.announce(init.announces);
  return {
    self,
    directory,
    asked: () => asked,
    async [Symbol.asyncDispose]() {
      directory.close();
      for (const timer of timers) clearInterval(timer);
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function misbehave(
  misdeed: Misdeed,
  response: ServerResponse,
  { length, timers }: { length: number; timers: Set<NodeJS.Timeout> },
): void {
  const headers = { 'content-type': 'application/octet-stream' };
  switch (misdeed) {
    case 'wrong bytes':
      response.writeHead(200, { ...headers, 'content-length': length }).end(randomBytes(length));
      return;
    case 'another length':
      response.writeHead(200, { ...headers, 'content-length': length + 1 }).end(randomBytes(length + 1));
      return;
    case 'truncation':
      response.writeHead(200, { ...headers, 'content-length': length });
      response.write(Buffer.alloc(Math.floor(length / 2)), () => response.socket?.end());
      return;
    case 'reset in the middle':
      response.writeHead(200, { ...headers, 'content-length': length });
      response.write(Buffer.alloc(Math.floor(length / 2)), () => {
        // The TCP connection below TLS, which alone can send RST.
        (response.socket as unknown as { _parent?: Socket })._parent?.resetAndDestroy();
      });
      return;
    case 'one byte a second': {
      response.writeHead(200, { ...headers, 'content-length': length });
      response.write(Buffer.alloc(1));
      timers.add(setInterval(() => response.write(Buffer.alloc(1)), 1_000));
      return;
    }
    case 'a redirect':
      response.writeHead(302, { location: 'https://127.0.0.1:1/chunk/elsewhere', 'content-length': 0 }).end();
      return;
    case 'endless headers':
      response
        .writeHead(200, { 'x-padding': 'x'.repeat(64 * 1024), 'content-length': length })
        .end(Buffer.alloc(length));
      return;
    case 'silence':
    case 'another certificate':
      return;
  }
}
