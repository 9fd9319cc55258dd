import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { connect as connectTcp, type Socket } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import fc from 'fast-check';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/core/digest.ts';
import { hasCode } from '../../../../src/errors.ts';

import { makeTlsIdentity, type TlsIdentity } from '../../../../src/source/peer/data/identity.ts';
import { clientMemoryBytes, DATA_LIMITS, serverMemoryBytes } from '../../../../src/source/peer/data/limits.ts';
import { createMemoryHub, type MemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import { createMemoryStore } from '../../../../src/store/memory-store.ts';
import { randomChunks, type TestBlob, testBlob, verified } from '../../../store/blob-fixture.ts';
import { CountingSource } from '../../../store/store-fixture.ts';
import { type Member, type MemberInit, startMember } from './member.ts';

const signal = new AbortController().signal;

async function holderOf(
  blob: TestBlob,
  init: MemberInit = {},
): Promise<{ hub: MemoryHub; holder: Member; stack: AsyncDisposableStack }> {
  const stack = new AsyncDisposableStack();
  const hub = createMemoryHub({ clock: systemClock });
  const holder = stack.use(await startMember(hub, { outside: createMemoryStore(await verified(blob)), ...init }));
  await holder.fill(blob);
  return { hub, holder, stack };
}

/** A raw TLS connection to a member's server. */
async function dial(to: Member, identity?: TlsIdentity, carrier?: Socket): Promise<TLSSocket> {
  const socket = connect({
    host: to.self.address,
    port: to.self.dataPort,
    rejectUnauthorized: false,
    ...(carrier === undefined ? {} : { socket: carrier }),
    ...(identity === undefined ? {} : { key: identity.key, cert: identity.cert }),
  });
  socket.on('error', () => {});
  await new Promise<void>((resolve) => socket.once('secureConnect', resolve).once('close', () => resolve()));
  return socket;
}

/** Everything the other side sends after `text`, until it closes or is silent for a while. */
async function say(socket: TLSSocket, text: string, forMs = 300): Promise<string> {
  let heard = '';
  const hear = (bytes: Buffer): void => {
    heard += bytes.toString('latin1');
  };
  socket.on('data', hear);
  socket.write(text);
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  await Promise.race([closed, sleep(forMs)]);
  socket.off('data', hear);
  return heard;
}

const path = (digest: Digest): string => `/chunk/${digest.replace(':', '/')}`;

test('who is not a neighbour learns nothing and is not sent more than it sent', { timeout: 30_000 }, async () => {
  const blob = testBlob(randomChunks(1, 50_000));
  const { holder, stack } = await holderOf(blob);
  await using _ = stack;
  const digest = blob.table.row(0).digest;
  for (const identity of [undefined, makeTlsIdentity()]) {
    const carrier = connectTcp(holder.self.dataPort, holder.self.address).on('error', () => {});
    const socket = await dial(holder, identity, carrier);
    const heard = await say(socket, `GET ${path(digest)} HTTP/1.1\r\nhost: x\r\n\r\n`, 1_000);
    assert.equal(heard, '');
    assert.equal(socket.destroyed, true);
    // S16: a handshake is all there is, and who starts it pays as much.
    assert.ok(carrier.bytesRead <= 1.1 * carrier.bytesWritten, `${carrier.bytesRead} of ${carrier.bytesWritten}`);
  }
  const raw = connectTcp(holder.self.dataPort, holder.self.address);
  let got = 0;
  raw.on('data', (bytes) => (got += bytes.length)).on('error', () => {});
  raw.write(`GET ${path(digest)} HTTP/1.1\r\nhost: x\r\n\r\n`);
  await new Promise<void>((resolve) => raw.once('close', () => resolve()));
  assert.ok(got < 16, `${got} bytes: a TLS alert at most`);
  const { chunks, requests, refusedConnections } = holder.plane.stats().uploads;
  assert.deepEqual({ chunks, requests, refusedConnections }, { chunks: 0, requests: 0, refusedConnections: 3 });
});

test('only TLS 1.3 is spoken', { timeout: 30_000 }, async () => {
  const { hub, holder, stack } = await holderOf(testBlob(randomChunks(1, 5_000)));
  await using _ = stack;
  const reader = stack.use(await startMember(hub));
  const socket = connect({
    host: holder.self.address,
    port: holder.self.dataPort,
    rejectUnauthorized: false,
    maxVersion: 'TLSv1.2',
    key: reader.identity.key,
    cert: reader.identity.cert,
  });
  const failed = await new Promise<boolean>((resolve) => {
    socket.once('error', () => resolve(true)).once('secureConnect', () => resolve(false));
  });
  assert.equal(failed, true);
});

test('nothing but a request for a chunk has an effect, and anything else ends the connection', {
  timeout: 60_000,
}, async () => {
  const blob = testBlob(randomChunks(1, 5_000));
  const { hub, holder, stack } = await holderOf(blob);
  await using _ = stack;
  const reader = stack.use(await startMember(hub));
  const good = path(blob.table.row(0).digest);
  const others = [
    'GET / HTTP/1.1',
    'GET /chunk/ HTTP/1.1',
    `GET ${good}/ HTTP/1.1`,
    `GET ${good}?wait=0 HTTP/1.1`,
    `GET ${good}?url=http://127.0.0.1/ HTTP/1.1`,
    `GET http://127.0.0.1:1${good} HTTP/1.1`,
    `GET /chunk/../..${good} HTTP/1.1`,
    `GET ${good.toUpperCase()} HTTP/1.1`,
    `HEAD ${good} HTTP/1.1`,
    `POST ${good} HTTP/1.1`,
    `PUT ${good} HTTP/1.1`,
    `DELETE ${good} HTTP/1.1`,
    `OPTIONS * HTTP/1.1`,
    `CONNECT 127.0.0.1:1 HTTP/1.1`,
  ];
  for (const line of others) {
    const socket = await dial(holder, reader.identity);
    const heard = await say(socket, `${line}\r\nhost: x\r\n\r\n`, 100);
    assert.match(heard, /^(HTTP\/1\.1 404 Not Found\r\n|$)/, line);
    assert.equal(socket.destroyed || socket.readableEnded, true, line);
    socket.destroy();
  }
  const withBody = await dial(holder, reader.identity);
  assert.match(await say(withBody, `GET ${good} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc`), /404/);
  assert.equal(holder.plane.stats().uploads.chunks, 0);

  const plain = await dial(holder, reader.identity);
  const headers =
    'host: other\r\nrange: bytes=0-1\r\naccept-encoding: gzip\r\nx-forwarded-for: y\r\nif-none-match: *\r\n';
  const answer = await say(plain, `GET ${good} HTTP/1.1\r\n${headers}\r\n`);
  assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/, 'headers change nothing');
  assert.match(answer, /content-length: 5000\r\n/i);
  assert.doesNotMatch(answer.slice(0, answer.indexOf('\r\n\r\n')), /server|date|etag|accept-ranges/i);
  plain.destroy();
});

test('requests of any shape neither crash the server nor make this node fetch anything', {
  timeout: 120_000,
}, async () => {
  const blob = testBlob(randomChunks(2, 5_000));
  const outside = await CountingSource.of(blob);
  const hub = createMemoryHub({ clock: systemClock });
  await using holder = await startMember(hub, { outside });
  await using reader = await startMember(hub);
  // Known by its table, and not here: what a peer names must not be fetched.
  await holder.open(blob);
  const good = path(blob.table.row(0).digest);
  const token = fc.oneof(
    fc.constantFrom(
      'GET',
      'POST',
      ' ',
      '\r\n',
      '\r\n\r\n',
      good,
      `${good}?wait=5`,
      'HTTP/1.1',
      'host: x',
      ':',
      '%00',
      '\0',
    ),
    fc.string({ maxLength: 20 }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(token, { maxLength: 12 }), async (tokens) => {
      const socket = await dial(holder, reader.identity);
      const heard = await say(socket, tokens.join(''), 5);
      assert.doesNotMatch(heard, /HTTP\/1\.1 2/);
      socket.destroy();
    }),
    { numRuns: 60 },
  );
  for (let row = 0; row < 2; row += 1) {
    const ref = { digest: blob.table.row(row).digest, length: 5_000 };
    await assert.rejects(reader.client.fetch(holder.self, ref, { signal, urgency: 'demand', waitMs: 200 }), (error) =>
      hasCode(error, 'CHUNK_MISSING'),
    );
  }
  assert.equal(outside.gets.length, 0);
});

test('a chunk whose bytes on disk are wrong is never served', { timeout: 30_000 }, async () => {
  const blob = testBlob(randomChunks(3, 100_000));
  const { hub, holder, stack } = await holderOf(blob, { outside: createMemoryStore(await verified(blob)) });
  await using _ = stack;
  const reader = stack.use(await startMember(hub));
  const device = holder.blobs.devices()[0];
  assert.ok(device !== undefined);
  const file = await open(device.path, 'r+');
  await file.write(Buffer.from('poison'), 0, 6, device.table.row(1).deviceOffset + 1_000);
  await file.close();
  const fetch = (row: number) => reader.client.fetch(holder.self, device.ref(row), { signal, urgency: 'demand' });
  assert.equal((await fetch(0)).chunk.digest, device.ref(0).digest);
  await assert.rejects(fetch(1), (error) => hasCode(error, 'CHUNK_MISSING'));
  assert.equal((await fetch(2)).chunk.digest, device.ref(2).digest);
  assert.equal(device.stats().corrupt, 1);
});

test('chunks of layers that are not shared are neither served nor waited for nor told of', {
  timeout: 30_000,
}, async () => {
  const secret = testBlob(randomChunks(2, 50_000));
  const { hub, holder, stack } = await holderOf(secret, { shareable: (blob) => blob !== secret.digest });
  await using _ = stack;
  const reader = stack.use(await startMember(hub));
  const device = holder.blobs.devices()[0];
  assert.ok(device !== undefined);
  await assert.rejects(
    reader.client.fetch(holder.self, device.ref(0), { signal, urgency: 'demand', waitMs: 100 }),
    (error) => hasCode(error, 'CHUNK_MISSING'),
  );
  assert.equal(await reader.directory.haveMap(holder.self, secret.digest, { signal }), undefined);
});

test('a request waits for a chunk that is on its way here, and no longer', { timeout: 30_000 }, async () => {
  const blob = testBlob(randomChunks(3, 100_000));
  const outside = await CountingSource.of(blob);
  const hub = createMemoryHub({ clock: systemClock });
  await using holder = await startMember(hub, { outside });
  await using reader = await startMember(hub);
  const device = await holder.open(blob);
  const gate = Promise.withResolvers<void>();
  outside.before = () => gate.promise;
  const ask = (row: number, waitMs: number) =>
    reader.client.fetch(holder.self, device.ref(row), { signal, urgency: 'demand', waitMs });
  await assert.rejects(ask(0, 1_000), (error) => hasCode(error, 'CHUNK_MISSING'), 'nothing is under way');
  const own = device.fill(0, device.size, { signal });
  await sleep(300);
  const started = performance.now();
  await assert.rejects(ask(0, 0), (error) => hasCode(error, 'CHUNK_MISSING'), 'it does not want to wait');
  await assert.rejects(ask(0, 200), (error) => hasCode(error, 'CHUNK_MISSING'), 'it waited long enough');
  assert.ok(performance.now() - started >= 190);
  // Longer than silence is borne: the server says that it goes on.
  const waiting = ask(1, 10_000);
  await sleep(DATA_LIMITS.progressMs + 500);
  assert.equal(holder.plane.stats().uploads.waiting, 1);
  gate.resolve();
  assert.equal((await waiting).chunk.digest, device.ref(1).digest);
  await own;
  assert.equal(outside.gets.length, 3);
});

test('a fetch that fails ends the requests that wait for it', { timeout: 30_000 }, async () => {
  const blob = testBlob(randomChunks(1, 100_000));
  const outside = await CountingSource.of(blob);
  const hub = createMemoryHub({ clock: systemClock });
  await using holder = await startMember(hub, { outside });
  await using reader = await startMember(hub);
  const device = await holder.open(blob);
  const gate = Promise.withResolvers<void>();
  outside.before = () => gate.promise;
  const own = device.fill(0, 4096, { signal });
  own.catch(() => {});
  await sleep(300);
  const waiting = reader.client.fetch(holder.self, device.ref(0), { signal, urgency: 'demand', waitMs: 10_000 });
  waiting.catch(() => {});
  await sleep(200);
  gate.reject(new Error('the registry is gone'));
  await assert.rejects(own);
  await assert.rejects(waiting, (error) => hasCode(error, 'CHUNK_MISSING'));
});

test('uploads stay within their budget, and a neighbour that asks too much is told to come back', {
  timeout: 60_000,
}, async () => {
  const blob = testBlob(randomChunks(40, 250_000));
  const bytesPerSecond = 4_000_000;
  const { hub, holder, stack } = await holderOf(blob, { plane: { uploadBytesPerSecond: bytesPerSecond } });
  await using _ = stack;
  const device = holder.blobs.devices()[0];
  assert.ok(device !== undefined);
  const readers = await Promise.all(Array.from({ length: 4 }, async () => stack.use(await startMember(hub))));
  const until = performance.now() + 4_000;
  const before = { ms: performance.now(), bytes: holder.plane.stats().uploads.bytes };
  let busy = 0;
  await Promise.all(
    readers.flatMap((reader) =>
      Array.from({ length: 8 }, async (_unused, lane) => {
        for (let row = lane; performance.now() < until; row += 8) {
          const ref = device.ref(row % 40);
          await reader.client.fetch(holder.self, ref, { signal, urgency: 'prefetch' }).catch(async (error) => {
            assert.ok(hasCode(error, 'UNAVAILABLE'), String(error));
            busy += 1;
            await sleep(100);
          });
        }
      }),
    ),
  );
  const rate = ((holder.plane.stats().uploads.bytes - before.bytes) * 1_000) / (performance.now() - before.ms);
  assert.ok(
    rate <= 1.05 * bytesPerSecond && rate >= 0.5 * bytesPerSecond,
    `${rate} B/s of ${bytesPerSecond}, busy ${busy}`,
  );
});

test('a neighbour that is banned is cut on the connection it has', { timeout: 30_000 }, async () => {
  const blob = testBlob(randomChunks(1, 5_000));
  const { hub, holder, stack } = await holderOf(blob);
  await using _ = stack;
  const reader = stack.use(await startMember(hub));
  const socket = await dial(holder, reader.identity);
  const request = `GET ${path(blob.table.row(0).digest)} HTTP/1.1\r\nhost: x\r\n\r\n`;
  assert.match(await say(socket, request), /^HTTP\/1\.1 200 OK/);
  holder.directory.ban(reader.self.id, { reason: 'test', forMs: 60_000 });
  assert.equal(await say(socket, request), '');
  assert.equal(socket.destroyed, true);
});

test('what server and client may hold in memory is stated', () => {
  assert.ok(serverMemoryBytes() < 256 * 1024 * 1024, `${serverMemoryBytes()}`);
  assert.ok(clientMemoryBytes() < 384 * 1024 * 1024, `${clientMemoryBytes()}`);
});
