import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { request } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createControlClient } from '../../src/control/client.ts';
import { type ControlComponents, startControlServer } from '../../src/control/server.ts';
import type { StatusReport } from '../../src/control/status.ts';
import { hasCode, ShoalError } from '../../src/errors.ts';
import { silentLogger } from '../../src/log.ts';
import { createMetricsRegistry } from '../../src/metrics.ts';

const REPORT: StatusReport = {
  daemon: {
    version: '1',
    pid: 2,
    startedAt: '2026-01-01T00:00:00.000Z',
    root: '/r',
    trap: { kind: 'fuse', reason: 'test' },
    rssBytes: 3,
  },
  images: [],
  faults: { cold: 1, warm: 2, denied: 0 },
  bytesBySource: { origin: 4 },
  sources: {},
  background: { state: 'idle', layers: 0, bytes: 0 },
  fetchedBytes: 5,
  mounts: [],
};

async function start(t: TestContext, overrides: Partial<ControlComponents> = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-control-'));
  const socket = join(folder, 'run', 'control.sock');
  const metrics = createMetricsRegistry();
  metrics.read({ type: 'gauge', name: 'shoal_test', help: 'Test.', read: () => [{ value: 1 }] });
  const components = { source: { status: () => REPORT }, metrics, config: { root: '/r' }, log: silentLogger };
  const server = await startControlServer({ ...components, ...overrides }, { socket });
  t.after(async () => {
    await server.stop();
    rmSync(folder, { recursive: true });
  });
  return { server, socket, client: createControlClient({ socket }) };
}

function raw(socket: string, method: string, path: string, body?: string) {
  return new Promise<{ status: number; allow: string | undefined; text: string }>((resolve, reject) => {
    const call = request({ socketPath: socket, method, path, agent: false }, (response) => {
      let text = '';
      response.on('data', (part) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, allow: response.headers.allow, text }));
    });
    call.on('error', reject);
    call.end(body);
  });
}

test('the client gets status, health, configuration and metrics', async (t) => {
  const { client } = await start(t);
  assert.deepEqual(await client.status(), REPORT);
  assert.deepEqual(await client.health(), { status: 'ok' });
  assert.deepEqual(await client.config(), { root: '/r' });
  assert.match(await client.metrics(), /^shoal_test 1$/m);
});

test('only the owner can reach the socket, and it goes with the server', async (t) => {
  const { server, socket } = await start(t);
  assert.equal(statSync(socket).mode & 0o777, 0o600);
  assert.equal(statSync(join(socket, '..')).mode & 0o777, 0o700);
  await server.stop();
  await server.stop();
  assert.equal(existsSync(socket), false);
});

test('unknown paths are 404, known paths with another method 405', async (t) => {
  const { socket } = await start(t);
  assert.equal((await raw(socket, 'GET', '/v2/x')).status, 404);
  const wrong = await raw(socket, 'POST', '/v1/status');
  assert.equal(wrong.status, 405);
  assert.equal(wrong.allow, 'GET');
});

test('an error of a route keeps its code and message; a foreign one shows nothing of itself', async (t) => {
  const { socket, client } = await start(t, {
    routes: [
      {
        method: 'POST',
        path: '/v1/known',
        handle: () => Promise.reject(new ShoalError('NOT_FOUND', 'no such mount')),
      },
      { method: 'POST', path: '/v1/foreign', handle: () => Promise.reject(new Error('secret detail')) },
      { method: 'POST', path: '/v1/echo', handle: ({ body }) => ({ body }) },
    ],
  });
  await assert.rejects(client.call('POST', '/v1/known'), (error) => {
    return hasCode(error, 'NOT_FOUND') && error.message === 'no such mount';
  });
  const foreign = await raw(socket, 'POST', '/v1/foreign');
  assert.equal(foreign.status, 500);
  assert.doesNotMatch(foreign.text, /secret/);
  assert.deepEqual(await client.call('POST', '/v1/echo', { a: [1] }), { body: { a: [1] } });
  assert.equal((await raw(socket, 'POST', '/v1/echo', '{')).status, 400);
  assert.equal((await raw(socket, 'POST', '/v1/echo', `"${'x'.repeat(70_000)}"`)).status, 413);
});

test('a route that takes too long is given up, and hears of it', async (t) => {
  let heard = false;
  const { client } = await start(t, {
    routes: [
      {
        method: 'GET',
        path: '/v1/slow',
        timeoutMs: 20,
        handle: ({ signal }) =>
          new Promise(() => {
            signal.addEventListener('abort', () => {
              heard = true;
            });
          }),
      },
    ],
  });
  await assert.rejects(client.call('GET', '/v1/slow'), (error) => hasCode(error, 'DEADLINE_EXCEEDED'));
  assert.equal(heard, true);
});

test('the client names the socket when no daemon answers, and says what to do', async (t) => {
  const { server, socket, client } = await start(t);
  await server.stop();
  await assert.rejects(client.status(), (error) => {
    return hasCode(error, 'UNAVAILABLE') && error.message.includes(socket) && error.message.includes('shoal serve');
  });
});

test('the client does not wait for ever', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-control-'));
  const socket = join(folder, 'mute.sock');
  const mute = createServer(() => {}).listen(socket);
  await new Promise((resolve) => mute.once('listening', resolve));
  t.after(() => {
    mute.close();
    rmSync(folder, { recursive: true });
  });
  const client = createControlClient({ socket });
  await assert.rejects(client.status({ timeoutMs: 30 }), (error) => hasCode(error, 'DEADLINE_EXCEEDED'));
  const reason = new Error('enough');
  await assert.rejects(client.status({ signal: AbortSignal.abort(reason) }), (error) => error === reason);
});

test('stopping cuts connections that are idle', async (t) => {
  const { server, socket } = await start(t);
  const idle = connect(socket);
  await new Promise((resolve) => idle.once('connect', resolve));
  const cut = new Promise((resolve) => idle.once('close', resolve));
  idle.on('error', () => {});
  await server.stop();
  await cut;
});
