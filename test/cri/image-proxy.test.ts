import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { type ClientHttp2Stream, connect, createServer, type ServerHttp2Stream } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ImageProxy, serveImageProxy } from '../../src/cri/image-proxy.ts';
import { hasCode } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { createRememberedCredentials } from '../../src/source/origin/remembered-credentials.ts';
import { field, frame, pullRequest } from './wire-writer.ts';

interface Answer {
  readonly headers: Record<string, unknown>;
  readonly body: Buffer;
  readonly trailers: Record<string, unknown>;
}

/** What containerd would get and say: bytes on HTTP/2, nothing of them understood. */
class FakeContainerd {
  readonly calls: { path: string; headers: Record<string, unknown>; body: Buffer }[] = [];
  answer: (stream: ServerHttp2Stream, body: Buffer) => void = (stream, body) => reply(stream, [body]);
  readonly #server = createServer();
  readonly socket: string;

  constructor(socket: string) {
    this.socket = socket;
    this.#server.on('stream', (stream, headers) => {
      const parts: Buffer[] = [];
      stream.on('error', () => {});
      stream.on('data', (part: Buffer) => parts.push(part));
      stream.on('end', () => {
        const body = Buffer.concat(parts);
        this.calls.push({ path: String(headers[':path']), headers, body });
        this.answer(stream, body);
      });
    });
  }

  async listen(): Promise<void> {
    this.#server.listen(this.socket);
    await once(this.#server, 'listening');
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

/** Messages, then trailers, as a gRPC server does. */
function reply(stream: ServerHttp2Stream, messages: readonly Uint8Array[], status = 0): void {
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': status, 'x-extra-bin': 'AAEC' }));
  for (const message of messages) stream.write(message);
  stream.end();
}

function refuse(stream: ServerHttp2Stream, status: number, message: string): void {
  const headers = {
    ':status': 200,
    'content-type': 'application/grpc',
    'grpc-status': status,
    'grpc-message': message,
  };
  stream.respond(headers, { endStream: true });
}

async function setup() {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-cri-'));
  const containerd = new FakeContainerd(join(folder, 'c.sock'));
  await containerd.listen();
  const lines: string[] = [];
  const log = createLogger({ level: 'debug', write: (line) => void lines.push(line) });
  const pulls = createRememberedCredentials({}, { name: 'pulls' });
  const socket = join(folder, 'shoal/cri.sock');
  const proxy: ImageProxy = await serveImageProxy({ pulls, log }, { socket, containerdSocket: containerd.socket });
  const client = connect('http://localhost', { createConnection: () => connectSocket(socket) });
  client.on('error', () => {});
  const start = (method: string, service = 'runtime.v1.ImageService'): ClientHttp2Stream => {
    const headers = { ':method': 'POST', ':path': `/${service}/${method}`, te: 'trailers', 'grpc-timeout': '9S' };
    return client.request({ ...headers, 'content-type': 'application/grpc', 'x-unknown': 'kept' });
  };
  return {
    containerd,
    pulls,
    lines,
    socket,
    proxy,
    start,
    call: (method: string, body: Uint8Array, service?: string) => {
      const stream = start(method, service);
      stream.end(body);
      return answerOf(stream);
    },
    known: async () => {
      const [found] = await pulls.find('reg.example', 'a', { signal: AbortSignal.timeout(1000) });
      return found?.kind === 'basic' ? `${found.username}:${found.password.reveal()}` : undefined;
    },
    async [Symbol.asyncDispose]() {
      client.destroy();
      await proxy.close();
      await containerd.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function answerOf(stream: ClientHttp2Stream): Promise<Answer> {
  let headers: Record<string, unknown> = {};
  let trailers: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  stream.on('response', (given) => {
    headers = given;
  });
  stream.on('trailers', (given) => {
    trailers = given;
  });
  stream.on('data', (part: Buffer) => parts.push(part));
  await once(stream, 'close');
  return { headers, trailers, body: Buffer.concat(parts) };
}

const AUTH = { username: 'robot', password: 'canary-password' };

test('every call goes through byte for byte, with what nobody knows of today', async () => {
  await using lab = await setup();
  const message = frame(Buffer.concat([field(1, 'a'), field(4321, 'from the future')]));
  for (const [method, service] of [
    ['ListImages', 'runtime.v1.ImageService'],
    ['ImageFsInfo', 'runtime.v1alpha2.ImageService'],
    ['InventedLater', 'runtime.v1.ImageService'],
  ] as const) {
    const { headers, trailers, body } = await lab.call(method, message, service);
    assert.deepEqual(body, message);
    assert.equal(headers[':status'], 200);
    assert.equal(trailers['grpc-status'], '0');
    assert.equal(trailers['x-extra-bin'], 'AAEC');
    const seen = lab.containerd.calls.at(-1);
    assert.deepEqual([seen?.path, seen?.body], [`/${service}/${method}`, message]);
    assert.deepEqual(
      [seen?.headers['grpc-timeout'], seen?.headers['x-unknown'], seen?.headers.te, seen?.headers[':authority']],
      ['9S', 'kept', 'trailers', 'localhost'],
    );
  }
});

test('streams of messages come as they are sent, and large ones in full', async () => {
  await using lab = await setup();
  const large = frame(Buffer.alloc(8 << 20, 7));
  lab.containerd.answer = (stream) => reply(stream, [frame(field(1, 'first')), large]);
  const { body } = await lab.call('StreamImages', frame(Buffer.alloc(0)));
  assert.deepEqual(body, Buffer.concat([frame(field(1, 'first')), large]));
});

test('errors of containerd arrive as it said them', async () => {
  await using lab = await setup();
  lab.containerd.answer = (stream) => refuse(stream, 5, 'no such image');
  const { headers } = await lab.call('ImageStatus', frame(Buffer.alloc(0)));
  assert.deepEqual([headers['grpc-status'], headers['grpc-message']], ['5', 'no such image']);
  lab.containerd.answer = (stream) => reply(stream, [], 13);
  const { trailers } = await lab.call('ImageStatus', frame(Buffer.alloc(0)));
  assert.equal(trailers['grpc-status'], '13');
});

test('the credential of a pull is known before containerd hears of it, and shows nowhere', async () => {
  await using lab = await setup();
  let meanwhile: string | undefined;
  lab.containerd.answer = (stream, body) =>
    void lab.known().then((known) => {
      meanwhile = known;
      reply(stream, [body]);
    });
  const request = frame(pullRequest('reg.example/a:1', AUTH));
  const { body } = await lab.call('PullImage', request);
  assert.deepEqual(body, request);
  assert.deepEqual(lab.containerd.calls[0]?.body, request, 'as kubelet sent it');
  assert.equal(meanwhile, 'robot:canary-password');
  assert.equal(await lab.known(), 'robot:canary-password');
  await lab.call('PullImage', frame(pullRequest('not an image', AUTH)));
  await lab.call('PullImage', Buffer.from([0, 0, 0, 0, 9, 1]));
  assert.equal(lab.containerd.calls.length, 3, 'what we do not understand is for containerd to refuse');
  assert.ok(!lab.lines.join('').includes('canary'));
});

test('the credential of a pull that fails is taken back', async () => {
  await using lab = await setup();
  await lab.call('PullImage', frame(pullRequest('reg.example/a', AUTH)));
  lab.containerd.answer = (stream) => refuse(stream, 2, 'unauthorized');
  await lab.call('PullImage', frame(pullRequest('reg.example/a', { ...AUTH, password: 'canary-wrong' })));
  assert.equal(await lab.known(), 'robot:canary-password');
});

test('a pull that is larger than anybody reads is passed on unread', async () => {
  await using lab = await setup();
  const request = frame(Buffer.concat([pullRequest('reg.example/a', AUTH), field(99, Buffer.alloc(3 << 20, 1))]));
  const { body } = await lab.call('PullImage', request);
  assert.deepEqual(body, request);
  assert.equal(await lab.known(), undefined);
});

test('a call that kubelet gives up is given up at containerd, and one that containerd drops ends for kubelet', async () => {
  await using lab = await setup();
  const dropped = Promise.withResolvers<void>();
  lab.containerd.answer = (stream) => stream.on('close', () => dropped.resolve());
  const stream = lab.start('PullImage');
  stream.on('error', () => {});
  stream.end(frame(pullRequest('reg.example/a', AUTH)));
  while (lab.containerd.calls.length === 0) await sleep(5);
  stream.close(8);
  await dropped.promise;
  lab.containerd.answer = (call) => call.close(2);
  const { headers } = await lab.call('ListImages', frame(Buffer.alloc(0)));
  assert.equal(headers['grpc-status'], '14');
});

test('without containerd calls are unavailable, and work again when it is back', async () => {
  await using lab = await setup();
  await lab.call('ListImages', frame(Buffer.alloc(0)));
  const closed = lab.containerd.close();
  await lab.proxy.close();
  await closed;
  const away = `${lab.containerd.socket}.away`;
  const socket = `${lab.socket}.2`;
  const log = createLogger({ level: 'error', write: () => {} });
  await using proxy = await serveImageProxy({ pulls: lab.pulls, log }, { socket, containerdSocket: away });
  const client = connect('http://localhost', { createConnection: () => connectSocket(socket) });
  const list = (): Promise<Answer> => {
    const stream = client.request({ ':method': 'POST', ':path': '/runtime.v1.ImageService/ListImages' });
    stream.end(frame(Buffer.alloc(0)));
    return answerOf(stream);
  };
  const { headers } = await list();
  assert.equal(headers['grpc-status'], '14');
  assert.match(String(headers['grpc-message']), /containerd does not answer/);
  const back = new FakeContainerd(away);
  await back.listen();
  assert.equal((await list()).trailers['grpc-status'], '0');
  client.destroy();
  await proxy.close();
  await back.close();
});

test('nothing but the image service is served, on a socket only its owner may open', async () => {
  await using lab = await setup();
  for (const service of [
    'runtime.v1.RuntimeService',
    'containerd.services.content.v1.Content',
    '../runtime.v1.ImageService',
  ]) {
    const { headers } = await lab.call('Version', frame(Buffer.alloc(0)), service);
    assert.equal(headers['grpc-status'], '12', service);
  }
  assert.equal(lab.containerd.calls.length, 0);
  assert.equal((await stat(lab.socket)).mode & 0o777, 0o600);
  const both = { socket: lab.containerd.socket, containerdSocket: lab.containerd.socket };
  await assert.rejects(serveImageProxy(lab as never, both), (error) => hasCode(error, 'CONFIG_INVALID'));
});
