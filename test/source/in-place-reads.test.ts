import assert from 'node:assert/strict';
import { hash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { buildConnector, type Dispatcher, Pool } from 'undici';
import { copied, inPlaceReads } from '../../src/source/in-place-reads.ts';
import { makeTlsIdentity } from '../../src/source/peer/data/identity.ts';

const BODIES = [0, 1, 16_384, 70_000, 1_048_576, 3_000_001].map((length) => randomBytes(length));
const listener: RequestListener = (request, response) => {
  const body = BODIES[Number(request.url?.slice(1))] as Buffer;
  response.writeHead(200, { 'content-length': body.byteLength }).end(body);
};

for (const scheme of ['http', 'https'] as const) {
  async function serving<T>(use: (pool: Pool) => Promise<T>): Promise<T> {
    const { key, cert } = makeTlsIdentity();
    const server = scheme === 'http' ? createServer(listener) : createSecureServer({ key, cert }, listener);
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port } = server.address() as AddressInfo;
    const connect = buildConnector({ rejectUnauthorized: false, ...inPlaceReads } as buildConnector.BuildOptions);
    const pool = new Pool(`${scheme}://127.0.0.1:${port}`, { connections: 8, pipelining: 1, allowH2: false, connect });
    try {
      return await use(pool);
    } finally {
      await pool.destroy();
      server.close();
    }
  }

  test(`bodies over ${scheme} come as they were sent, on several connections at a time and one after another`, async () => {
    await serving(async (pool) => {
      const wanted = Array.from({ length: 120 }, (_, index) => index % BODIES.length);
      const got = await Promise.all(wanted.map((index) => collect(pool, index)));
      for (const [at, index] of wanted.entries()) assert.equal(hash('sha256', got[at] as Buffer), digestOf(index));
    });
  });

  test(`over ${scheme} nothing is lost when the reader pauses`, async () => {
    await serving(async (pool) => {
      const got = await Promise.all([4, 5, 4].map((index) => collect(pool, index, { pauseMs: 2 })));
      assert.deepEqual(
        got.map((body) => hash('sha256', body)),
        [4, 5, 4].map(digestOf),
      );
    });
  });

  test(`over ${scheme} a body that is kept as it comes is a copy`, async () => {
    await serving(async (pool) => {
      const safe = pool.compose(copied);
      const got = await Promise.all(
        [5, 4, 5, 3].map(async (index) => {
          const { body } = await safe.request({ path: `/${index}`, method: 'GET' });
          return hash('sha256', Buffer.from(await body.arrayBuffer()));
        }),
      );
      assert.deepEqual(got, [5, 4, 5, 3].map(digestOf));
    });
  });
}

const digestOf = (index: number): string => hash('sha256', BODIES[index] as Buffer);

/** Copies what comes at once, as handlers must; pauses after each piece when told to. */
function collect(dispatcher: Dispatcher, index: number, { pauseMs = 0 } = {}): Promise<Buffer> {
  const parts: Buffer[] = [];
  return new Promise((resolve, reject) => {
    dispatcher.dispatch(
      { path: `/${index}`, method: 'GET' },
      {
        onRequestStart() {},
        onResponseStart() {},
        onResponseData(controller, chunk) {
          parts.push(Buffer.from(chunk));
          if (pauseMs === 0 || parts.length % 8 !== 0) return;
          controller.pause();
          setTimeout(() => controller.resume(), pauseMs);
        },
        onResponseEnd: () => resolve(Buffer.concat(parts)),
        onResponseError: (_, error) => reject(error),
      },
    );
  });
}
