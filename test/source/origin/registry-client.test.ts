import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import { type ErrorCode, hasCode } from '../../../src/errors.ts';
import { hostPlatform } from '../../../src/image/platform.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import type { RegistryClient } from '../../../src/source/origin/registry-client.ts';
import { FakeRegistry, type Fault } from '../../fakes/registry.ts';
import { imageAt, randomBytes, soon, testClient } from './setup.ts';

const LAYOUT = fileURLToPath(new URL('../../fixtures/small/oci-estargz', import.meta.url));
const SIZE = 100_000;

async function setup(init: Parameters<typeof testClient>[0] = {}): Promise<{
  registry: FakeRegistry;
  client: RegistryClient;
  bytes: Uint8Array;
  digest: Digest;
  read: (offset: number, length: number, signal?: AbortSignal) => Promise<Uint8Array>;
  [Symbol.asyncDispose](): Promise<void>;
}> {
  const registry = await FakeRegistry.start();
  const client = testClient(init);
  const bytes = randomBytes(SIZE);
  const digest = registry.addBlob(bytes);
  const blob = await client.blob(imageAt(registry.host), { digest, size: SIZE }, { signal: soon() });
  return {
    registry,
    client,
    bytes,
    digest,
    read: (offset, length, signal = soon()) => blob.read(offset, length, { signal }),
    async [Symbol.asyncDispose]() {
      await client.close();
      await registry.close();
    },
  };
}

function code(expected: ErrorCode, why = /./, status?: number) {
  return (error: unknown): boolean => {
    assert.ok(hasCode(error, expected), `${expected} expected, got ${String(error)}`);
    assert.match(error.message, why);
    if (status !== undefined) assert.equal(error.context.status, status);
    return true;
  };
}

test('an image is fetched: tag, manifest, config, layers', async () => {
  await using fake = await setup();
  const digest = fake.registry.addOciLayout(LAYOUT, 'team/app', '1');
  const reference = imageAt(fake.registry.host);
  assert.equal((await fake.client.resolve(reference, { signal: soon() })).digest, digest);
  const image = await fetchImage(fake.client, reference, { platform: hostPlatform('x64'), signal: soon() });
  assert.equal(image.digest, digest);
  assert.equal(image.manifest.layers.length, 2);
  const config = await fake.client.config(reference, image.manifest.config, { signal: soon() });
  assert.equal(JSON.parse(Buffer.from(config).toString()).os, 'linux');
  for (const layer of image.manifest.layers) {
    const blob = await fake.client.blob(reference, layer, { signal: soon() });
    assert.equal(sha256(await blob.read(0, blob.size, { signal: soon() })), layer.digest);
  }
});

test('an index leads to the manifest of the platform, and errors name the image', async () => {
  await using fake = await setup();
  const digest = fake.registry.addOciLayout(LAYOUT, 'team/app', 'amd');
  const entry = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size: 933 };
  const type = 'application/vnd.oci.image.index.v1+json';
  const platform = { os: 'linux', architecture: 'amd64' };
  const index = fake.registry.addManifest('team/app', '1', {
    schemaVersion: 2,
    mediaType: type,
    manifests: [{ ...entry, platform }],
  });
  const reference = imageAt(fake.registry.host);
  const image = await fetchImage(fake.client, reference, { platform: hostPlatform('x64'), signal: soon() });
  assert.deepEqual([image.digest, image.manifest.digest], [index, digest]);
  await assert.rejects(
    fetchImage(fake.client, reference, { platform: hostPlatform('s390x'), signal: soon() }),
    (error) => {
      assert.ok(hasCode(error, 'NOT_FOUND'));
      assert.match(error.describe(), /team\/app:1: no manifest for linux\/s390x/);
      return true;
    },
  );
  fake.registry.addManifest('team/app', '1', {
    schemaVersion: 2,
    mediaType: type,
    manifests: [{ ...entry, platform, size: 934 }],
  });
  await assert.rejects(
    fetchImage(fake.client, reference, { platform: hostPlatform('x64'), signal: soon() }),
    code('INVALID_MANIFEST', /its descriptor says 934/),
  );
});

test('a manifest with other bytes than its digest, or too many, is refused', async () => {
  await using fake = await setup();
  const digest = fake.registry.addOciLayout(LAYOUT, 'team/app', '1');
  const reference = imageAt(fake.registry.host);
  fake.registry.inject({ path: /manifests/, corrupt: true });
  for (const target of [digest, '1']) {
    await assert.rejects(
      fake.client.manifest(reference, target, { signal: soon() }),
      code('INVALID_MANIFEST', /its digest is/),
    );
  }
  fake.registry.heal();
  fake.registry.addManifest(
    'team/app',
    'big',
    Buffer.alloc(5 << 20, 0x20),
    'application/vnd.oci.image.manifest.v1+json',
  );
  await assert.rejects(
    fake.client.manifest(reference, 'big', { signal: soon() }),
    code('INVALID_MANIFEST', /5242880 bytes/),
  );
  fake.registry.inject({ path: /manifests/, extraBytes: 5 << 20 });
  await assert.rejects(
    fake.client.manifest(reference, '1', { signal: soon() }),
    code('REGISTRY_RESPONSE', /more than/),
  );
});

test('every range of a blob is read exactly', async () => {
  await using fake = await setup();
  for (const [offset, length] of [
    [0, SIZE],
    [0, 1],
    [SIZE - 1, 1],
    [4096, 8192],
    [1, SIZE - 1],
    [77, 0],
  ] as const) {
    assert.deepEqual(
      Buffer.from(await fake.read(offset, length)),
      Buffer.from(fake.bytes.subarray(offset, offset + length)),
    );
  }
  for (const [offset, length] of [
    [SIZE, 1],
    [0, SIZE + 1],
    [-1, 2],
    [0.5, 1],
    [0, -1],
    [2 ** 53, 1],
    [Number.NaN, 1],
  ] as const) {
    const before = fake.registry.requests.length;
    await assert.rejects(fake.read(offset, length), code('RANGE_MISMATCH'));
    assert.equal(fake.registry.requests.length, before, 'nothing is asked');
  }
});

test('the size is found by HEAD, and by a range where HEAD does not tell', async () => {
  await using fake = await setup();
  const size = async (): Promise<number> =>
    (await fake.client.blob(imageAt(fake.registry.host), { digest: fake.digest }, { signal: soon() })).size;
  assert.equal(await size(), SIZE);
  fake.registry.inject({ method: 'HEAD', status: 405 });
  assert.equal(await size(), SIZE);
});

test('the tail comes in one request, and also from servers without suffix ranges', async () => {
  await using fake = await setup();
  const where = imageAt(fake.registry.host);
  const tail = (bytes: number, digest = fake.digest) => fake.client.blobTail(where, digest, bytes, { signal: soon() });
  const expected = { bytes: Buffer.from(fake.bytes.subarray(SIZE - 1000)), offset: SIZE - 1000, size: SIZE };
  assert.deepEqual(await tail(1000), expected);
  assert.equal(fake.registry.count(), 1);
  assert.equal((await tail(SIZE * 2)).bytes.byteLength, SIZE, 'a shorter blob comes whole');
  const empty = fake.registry.addBlob(new Uint8Array(0));
  assert.deepEqual(await tail(10, empty), { bytes: new Uint8Array(0), offset: 0, size: 0 });
  const without: Fault[] = [
    { noSuffix: true },
    { ignoreRange: true, times: 1 },
    { status: 501, times: 1 },
    { status: 400, times: 1 },
  ];
  for (const fault of without) {
    fake.registry.inject(fault);
    assert.deepEqual(await tail(1000), expected, JSON.stringify(fault));
    fake.registry.heal();
  }
  fake.registry.inject({ headers: { 'content-range': `bytes 0-999/${SIZE}` } });
  await assert.rejects(tail(1000), code('RANGE_MISMATCH'));
});

test('a Content-Range that is not what was asked for is refused', async () => {
  await using fake = await setup();
  const lies = [
    `bytes 1-4096/${SIZE}`,
    `bytes 0-4094/${SIZE}`,
    `bytes 0-4096/${SIZE}`,
    `bytes 0-4095/${SIZE + 1}`,
    `bytes 4096-8191/${SIZE}`,
    `items 0-4095/${SIZE}`,
    'bytes */100000',
    '0-4095/100000',
    `bytes 0-4095/${SIZE}, bytes 0-4095/${SIZE}`,
    'bytes 18446744073709551616-1/2',
    undefined,
  ];
  for (const lie of lies) {
    fake.registry.inject({ headers: { 'content-range': lie } });
    await assert.rejects(fake.read(0, 4096), code('RANGE_MISMATCH'), String(lie));
    fake.registry.heal();
  }
  fake.registry.inject({ headers: { 'content-length': '5000' }, stallAt: 10 });
  await assert.rejects(fake.read(0, 4096), code('RANGE_MISMATCH'), 'another length');
  assert.equal(fake.registry.count(), lies.length + 1, 'none is asked for again');
});

test('a 200 in answer to a range is refused unread, but for the whole blob', async () => {
  await using fake = await setup();
  fake.registry.inject({ ignoreRange: true, stallAt: 100 });
  const start = performance.now();
  await assert.rejects(fake.read(0, 4096), code('REGISTRY_RESPONSE', /instead of 206.*ignores ranges/, 200));
  assert.ok(performance.now() - start < 2000, 'the body is not waited for');
  fake.registry.heal();
  fake.registry.inject({ ignoreRange: true });
  assert.deepEqual(Buffer.from(await fake.read(0, SIZE)), Buffer.from(fake.bytes));
  fake.registry.heal();
  fake.registry.inject({ status: 200, body: 'short', headers: { 'content-length': '5' } });
  await assert.rejects(fake.read(0, SIZE), code('RANGE_MISMATCH', /sends 5 bytes/));
});

test('a body that is too long, coded, or no HTTP at all is refused', async () => {
  await using fake = await setup();
  const cases: [Fault, RegExp][] = [
    [{ extraBytes: 1 }, /more than the 4096 bytes/],
    [{ extraBytes: 10 << 20 }, /more than the 4096 bytes/],
    [{ headers: { 'content-encoding': 'gzip' } }, /coded as "gzip"/],
    [{ headers: { 'content-encoding': 'identity, br' } }, /coded as/],
    [{ headers: { 'x-filler': 'x'.repeat(1 << 20) } }, /not HTTP\/1\.1/],
    [{ respond: (_request, response) => response.socket?.end('SSH-2.0-OpenSSH\r\n\r\n') }, /not HTTP\/1\.1/],
  ];
  for (const [fault, why] of cases) {
    fake.registry.inject(fault);
    await assert.rejects(fake.read(0, 4096), code('REGISTRY_RESPONSE', why), JSON.stringify(fault).slice(0, 80));
    fake.registry.heal();
  }
  assert.equal(fake.registry.count(), cases.length, 'none is asked for again');
  assert.equal((await fake.read(0, 10)).byteLength, 10, 'the client still works');
});

test('a chunked body without end is cut, by its length or by time', async () => {
  await using fake = await setup({ init: { stallTimeoutMs: 300, attempts: 1, attemptTimeoutMs: 1500 } });
  fake.registry.inject({ stallAt: 100, extraBytes: 0 });
  await assert.rejects(fake.read(0, 4096), code('SOURCE_FAILED'));
  fake.registry.heal();
  fake.registry.inject({
    respond: (_request, response) => {
      response.writeHead(206, { 'content-range': `bytes 0-4095/${SIZE}` });
      const drip = setInterval(() => response.write('x'), 50);
      response.on('close', () => clearInterval(drip));
    },
  });
  await assert.rejects(fake.read(0, 4096), code('SOURCE_FAILED', /no answer within 1500 ms/));
});

test('what may pass is tried again: cuts, resets, 429 and 5xx', async () => {
  await using fake = await setup();
  const cases: Fault[] = [
    { truncateAt: 100, times: 3 },
    { truncateAt: 100, extraBytes: 0, times: 3 },
    { reset: true, times: 3 },
    { status: 503, times: 3 },
    { status: 500, times: 1 },
    { status: 429, headers: { 'retry-after': '0' }, times: 2 },
  ];
  for (const fault of cases) {
    const before = fake.registry.count();
    fake.registry.inject(fault);
    assert.deepEqual(Buffer.from(await fake.read(5, 4096)), Buffer.from(fake.bytes.subarray(5, 4101)));
    assert.equal(fake.registry.count() - before, (fault.times ?? 0) + 1, JSON.stringify(fault));
    fake.registry.heal();
  }
});

test('tries are bounded, and the last failure is told', async () => {
  await using fake = await setup({ init: { attempts: 4 } });
  fake.registry.inject({ truncateAt: 100 });
  await assert.rejects(fake.read(0, 4096), code('SOURCE_FAILED'));
  assert.equal(fake.registry.count(), 4);
  fake.registry.heal();
  fake.registry.inject({ status: 503, headers: { 'retry-after': '3600' } });
  await assert.rejects(
    fake.read(0, 4096),
    (error) =>
      code('REGISTRY_RESPONSE', /503/, 503)(error) &&
      hasCode(error, 'REGISTRY_RESPONSE') &&
      error.context.retryAfterMs === 3_600_000,
  );
  assert.equal(fake.registry.count(), 5, 'a long Retry-After is left to the caller');
});

test('a blob that is not there and other refusals are not asked for again', async () => {
  await using fake = await setup();
  const where = imageAt(fake.registry.host);
  const missing = await fake.client.blob(where, { digest: sha256('missing'), size: 5 }, { signal: soon() });
  await assert.rejects(missing.read(0, 5, { signal: soon() }), code('REGISTRY_RESPONSE', /404/, 404));
  await assert.rejects(fake.client.resolve(where, { signal: soon() }), code('REGISTRY_RESPONSE', /404/, 404));
  fake.registry.inject({ status: 403 });
  await assert.rejects(fake.read(0, 5), code('AUTH_REFUSED', /403/));
  assert.equal(fake.registry.count(), 3);
});

test('the deadline of the signal ends everything, also the wait for a free connection', async () => {
  await using fake = await setup({ init: { connections: 1 } });
  fake.registry.inject({ delayMs: 60_000 });
  const slow = fake.read(0, 10, soon(400));
  const queued = fake.read(0, 10, soon(200));
  await assert.rejects(queued, code('DEADLINE_EXCEEDED'));
  await assert.rejects(slow, code('DEADLINE_EXCEEDED'));
  const stop = new AbortController();
  const reason = new Error('not wanted any more');
  const pending = fake.read(0, 10, stop.signal);
  setTimeout(() => stop.abort(reason), 50);
  await assert.rejects(pending, (error) => error === reason);
  await assert.rejects(fake.read(0, 10, AbortSignal.abort(reason)), (error) => error === reason);
  fake.registry.heal();
  assert.equal((await fake.read(0, 10)).byteLength, 10, 'the connection is not stuck');
});

test('headers that never come and ports that refuse are failures of the source', async () => {
  await using fake = await setup({ init: { headersTimeoutMs: 200, attempts: 2 } });
  fake.registry.inject({ delayMs: 60_000 });
  await assert.rejects(fake.read(0, 10), code('SOURCE_FAILED', /UND_ERR_HEADERS_TIMEOUT/));
  assert.equal(fake.registry.count(), 2);
  await fake.registry.close();
  await assert.rejects(fake.read(0, 10), code('SOURCE_FAILED', /ECONNREFUSED|UND_ERR_SOCKET/));
});

test('no more connections are opened than allowed, and they are used again', async () => {
  await using fake = await setup({ init: { connections: 4 } });
  await Promise.all(Array.from({ length: 64 }, (_, index) => fake.read(index, 100)));
  assert.ok(fake.registry.connections <= 4, `${fake.registry.connections} connections`);
  const before = fake.registry.connections;
  for (let index = 0; index < 10; index += 1) await fake.read(index, 100);
  assert.equal(fake.registry.connections, before);
});

test('a redirect is followed without credentials, and used again for a while', async () => {
  await using fake = await setup();
  await using store = await FakeRegistry.start();
  store.addBlob(fake.bytes);
  fake.registry.inject({ path: /blobs/, redirectTo: `http://${store.host}{path}?signature=secret` });
  for (let index = 0; index < 3; index += 1) await fake.read(index, 100);
  assert.deepEqual([fake.registry.count(), store.count()], [1, 3]);
  store.inject({ status: 403, times: 1 });
  assert.equal((await fake.read(0, 100)).byteLength, 100);
  assert.deepEqual([fake.registry.count(), store.count()], [2, 5], 'an expired one is asked for anew');
  store.inject({ status: 403 });
  await assert.rejects(
    fake.read(0, 100),
    (error) => code('AUTH_REFUSED', /gets no credentials/)(error) && !String(error).includes('secret'),
  );
});

test('redirects to where a registry must not send us are not followed', async () => {
  await using fake = await setup();
  const targets = [
    'http://169.254.169.254/latest/meta-data/',
    'http://[fd00:ec2::254]/',
    'file:///etc/passwd',
    'http://10.0.0.1/',
    'http://cdn.example/',
    'https://192.168.1.1/',
    'http://0.0.0.0:1/',
    'gopher://127.0.0.1/',
  ];
  for (const redirectTo of targets) {
    fake.registry.inject({ redirectTo });
    await assert.rejects(fake.read(0, 10), code('URL_REFUSED'), redirectTo);
    fake.registry.heal();
  }
  assert.equal(fake.registry.count(), targets.length);
  fake.registry.inject({ redirectTo: '/v2/team/app/blobs/again' });
  await assert.rejects(fake.read(0, 10), code('URL_REFUSED', /more than 5 times/));
  assert.equal(fake.registry.count(), targets.length + 6);
});

test('a name that resolves to a forbidden address is never connected to, whatever port it listens on', async () => {
  await using fake = await setup();
  const port = fake.registry.host.split(':')[1];
  let lookups = 0;
  await using client = testClient({
    policy: {
      registries: { [`rebind.example:${port}`]: { plainHttp: true } },
      lookup: (_host, _options, callback) => {
        lookups += 1;
        // A first honest answer, then the rebinding one: what is checked is what is connected to.
        callback(null, [{ address: lookups === 1 ? '127.0.0.1' : '169.254.169.254', family: 4 }]);
      },
    },
  });
  const reference = parseReference(`rebind.example:${port}/team/app:1`);
  for (const why of [/127\.0\.0\.1, a loopback address; set allow_private/, /169\.254\.169\.254, a forbidden/]) {
    await assert.rejects(client.resolve(reference, { signal: soon() }), code('URL_REFUSED', why));
  }
  assert.equal(fake.registry.count(), 0);
});

test('a configured private name is reached at the address that was checked', async () => {
  await using fake = await setup();
  const port = fake.registry.host.split(':')[1];
  await using client = testClient({
    policy: {
      registries: { [`corp.example:${port}`]: { plainHttp: true, allowPrivate: true } },
      lookup: (_host, _options, callback) => callback(null, [{ address: '127.0.0.1', family: 4 }]),
    },
  });
  const blob = await client.blob(
    parseReference(`corp.example:${port}/team/app`),
    { digest: fake.digest, size: SIZE },
    { signal: soon() },
  );
  assert.equal((await blob.read(0, 10, { signal: soon() })).byteLength, 10);
  assert.equal(fake.registry.requests[0]?.headers.host, `corp.example:${port}`);
});

test('identity is all that is accepted as coding, and nothing else is told about us', async () => {
  await using fake = await setup();
  await fake.read(0, 10);
  const headers = fake.registry.requests[0]?.headers ?? {};
  assert.deepEqual(Object.keys(headers).sort(), ['accept-encoding', 'connection', 'host', 'range', 'user-agent']);
  assert.equal(headers['accept-encoding'], 'identity');
});

test('a closed client refuses work and ends what is under way', async () => {
  await using fake = await setup();
  fake.registry.inject({ delayMs: 60_000 });
  const pending = fake.read(0, 10);
  setTimeout(() => void fake.client.close(), 50);
  await assert.rejects(pending, code('UNAVAILABLE'));
  await assert.rejects(fake.read(0, 10), code('UNAVAILABLE'));
  await fake.client.close();
});
