import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type DragonflyFault, FakeDragonfly } from '../../fakes/dragonfly.ts';
import { freePort } from '../../lab/registry.ts';
import { randomChunks } from '../../store/blob-fixture.ts';
import { type MirrorLab, startMirrorLab } from './mirror-lab.ts';

/** F13: the longest a read may take in the worst fault of a mirror. */
const WORST_MS = 6_000;

/** A hosts.toml with one Dragonfly client. */
function dragonflyHosts(double: Pick<FakeDragonfly, 'url' | 'healthUrl'>, registry: string, more = ''): string {
  return `[host."${double.url}"]
capabilities = ["pull", "resolve"]
ping_url = "${double.healthUrl}"
${more}
[host."${double.url}".header]
X-Dragonfly-Registry = "http://${registry}"
`;
}

/** `use` with a lab whose registry has one Dragonfly client as mirror. */
async function withDragonfly(use: (lab: MirrorLab, double: FakeDragonfly) => Promise<void>, more = ''): Promise<void> {
  await using double = await FakeDragonfly.start();
  await using lab = await startMirrorLab();
  await lab.hosts(dragonflyHosts(double, lab.registry.host, more));
  await use(lab, double);
}

function blobReads(lab: MirrorLab): number {
  return lab.registry.requests.filter(({ method, path }) => method === 'GET' && path.includes('/blobs/')).length;
}

test('chunks come from the mirror, and each piece of 4 MiB is fetched once', async () => {
  await withDragonfly(async (lab, double) => {
    for (const index of lab.refs.keys()) await lab.read(index);
    assert.equal(lab.mirror.chunks, lab.refs.length);
    assert.equal(lab.origin.requests, 0);
    const pieces = Math.ceil(lab.blob.compressed.byteLength / (4 * 1024 * 1024));
    assert.equal(double.piecesFetched.length, pieces);
    assert.equal(double.blobRequests().length, pieces, 'reads of one piece share one request');
    for (const { headers } of double.blobRequests()) {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(headers.range ?? '') ?? [];
      assert.equal(Number(first) % (4 * 1024 * 1024), 0);
      assert.ok(Number(last) === lab.blob.compressed.byteLength - 1 || (Number(last) + 1) % (4 * 1024 * 1024) === 0);
    }
  });
});

test('Dragonfly is told what a request is', async () => {
  await withDragonfly(async (lab, double) => {
    await lab.read(0);
    await lab.read(20, { urgency: 'prefetch' });
    const [demand, prefetch] = double.blobRequests();
    assert.ok(demand !== undefined && prefetch !== undefined);
    assert.match(demand.url, new RegExp(`^/v2/team/app/blobs/${lab.blob.digest}\\?ns=127\\.0\\.0\\.1%3A\\d+$`));
    const said = Object.fromEntries(Object.entries(demand.headers).filter(([name]) => name.startsWith('x-')));
    assert.deepEqual(said, {
      'x-dragonfly-registry': `http://${lab.registry.host}`,
      'x-dragonfly-use-p2p': 'true',
      'x-dragonfly-prefetch': 'false',
      'x-dragonfly-priority': '6',
      'x-dragonfly-enable-task-id-based-blob-digest': 'true',
      'x-dragonfly-application': 'shoal',
    });
    assert.equal(prefetch.headers['x-dragonfly-priority'], '3');
  });
});

const FAULTS: readonly [name: string, fault: DragonflyFault][] = [
  ['429', { status: 429, headers: { 'retry-after': '2', 'x-dragonfly-error-type': 'proxy' } }],
  ['403', { status: 403, headers: { 'x-dragonfly-error-type': 'proxy' } }],
  ['404', { status: 404 }],
  ['401', { status: 401, headers: { 'www-authenticate': 'Basic realm="x"' } }],
  ['500', { status: 500 }],
  ['500 of the registry', { status: 500, headers: { 'x-dragonfly-error-type': 'backend' } }],
  ['503 of dfdaemon', { status: 503, headers: { 'x-dragonfly-error-type': 'dfdaemon' } }],
  ['an answer after 10 s', { delayMs: 10_000 }],
  ['a body that stalls', { stallAt: 100_000 }],
  ['a body of one byte a second', { dripMs: 1_000 }],
  ['a body that is cut', { truncateAt: 100_000 }],
  ['another range', { wrongRange: true }],
  ['200 instead of 206', { ignoreRange: true }],
  ['wrong bytes', { corrupt: true }],
  ['a connection that is cut', { reset: true }],
];

for (const [name, fault] of FAULTS) {
  test(`F13: with ${name} from the mirror a read succeeds within 6 s, and those after it are not slowed down`, async () => {
    await withDragonfly(async (lab, double) => {
      double.inject(fault);
      const worst = Math.max(...(await Promise.all([0, 5, 11, 17, 23].map((index) => lab.read(index)))));
      assert.ok(worst < WORST_MS, `${worst} ms`);
      const after: number[] = [];
      for (const index of [1, 2, 3, 4, 6, 7]) after.push(await lab.read(index));
      assert.ok(Math.max(...after) < 1_000, `${after}`);
      assert.equal(lab.origin.chunks, 11);
    });
  });
}

test('a mirror that asks to be left alone for 2 s is, and then serves again', async () => {
  await withDragonfly(async (lab, double) => {
    double.inject({ times: 1, status: 429, headers: { 'retry-after': '2', 'x-dragonfly-error-type': 'proxy' } });
    const startedMs = performance.now();
    await lab.read(0);
    for (let index = 1; index < 8; index += 1) await lab.read(index);
    assert.equal(double.blobRequests().length, 1);
    assert.equal(lab.origin.chunks, 8);
    while (lab.mirror.chunks === 0 && performance.now() - startedMs < 10_000) {
      await lab.read(12);
      await sleep(50);
    }
    const backMs = performance.now() - startedMs;
    assert.ok(backMs >= 2_000 && backMs < 4_000, `${backMs} ms`);
  });
});

test('403 means straight to the registry: neither this mirror nor the next one is asked again', async () => {
  await using second = await FakeDragonfly.start();
  await withDragonfly(async (lab, double) => {
    await lab.hosts(dragonflyHosts(double, lab.registry.host) + dragonflyHosts(second, lab.registry.host));
    double.inject({ status: 403, headers: { 'x-dragonfly-error-type': 'proxy' } });
    await lab.read(0);
    assert.equal(lab.origin.chunks, 1);
    assert.equal(second.requests.length, 0);
    await lab.read(1);
    assert.equal(double.blobRequests().length, 1, 'what it refused is not asked of it again');
  });
});

test('the next mirror is asked before the registry', async () => {
  await using second = await FakeDragonfly.start();
  await withDragonfly(async (lab, double) => {
    await lab.hosts(dragonflyHosts(double, lab.registry.host) + dragonflyHosts(second, lab.registry.host));
    double.inject({ corrupt: true });
    for (let index = 0; index < 6; index += 1) await lab.read(index);
    assert.equal(lab.origin.chunks, 0);
    assert.ok(second.blobRequests().length > 0);
  });
});

test('a dead mirror costs one dial timeout, once, however many reads and layers there are', async () => {
  // Accepts connections and says nothing: TLS never comes up.
  let connections = 0;
  const silent = createServer(() => {
    connections += 1;
  });
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const address = silent.address() as { port: number };
  try {
    await using lab = await startMirrorLab();
    await lab.hosts(`[host."https://127.0.0.1:${address.port}"]\ndial_timeout = "2s"\nhealth_check_interval = 600\n`);
    const first = await Promise.all(lab.refs.map((_, index) => lab.read(index)));
    const worst = Math.max(...first);
    assert.ok(worst >= 1_900 && worst < 4_000, `${worst} ms`);
    const dialled = connections;
    assert.ok(dialled > 0);
    for (let round = 0; round < 20; round += 1) assert.ok((await lab.read(round)) < 1_900);
    assert.equal(connections, dialled, 'no read after it tries');
  } finally {
    silent.close();
  }
});

test('F13: a mirror that is well again is used again, and no read pays for finding out', async () => {
  const port = await freePort();
  await using lab = await startMirrorLab();
  await lab.hosts(`[host."http://127.0.0.1:${port}"]
health_check_interval = 1
[host."http://127.0.0.1:${port}".header]
X-Dragonfly-Registry = "http://${lab.registry.host}"
`);
  for (let index = 0; index < 6; index += 1) await lab.read(index);
  assert.equal(lab.mirror.chunks, 0);
  await using double = await FakeDragonfly.start({ port });
  const startedMs = performance.now();
  while (lab.mirror.chunks === 0 && performance.now() - startedMs < 30_000) {
    assert.ok((await lab.read(7)) < 1_000);
    await sleep(50);
  }
  assert.ok(performance.now() - startedMs < 30_000);
  assert.ok(double.blobRequests().length > 0);
});

test('a mirror killed in the middle of reads costs no read', async () => {
  const double = await FakeDragonfly.start();
  await using lab = await startMirrorLab({ chunks: randomChunks(24, 1024 * 1024) });
  await lab.hosts(dragonflyHosts(double, lab.registry.host));
  await lab.read(0);
  double.inject({ stallAt: 2_000_000 });
  const reads = lab.refs.map((_, index) => lab.read(index));
  await sleep(200);
  await double.close();
  await Promise.all(reads);
  for (const index of lab.refs.keys()) await lab.read(index);
  assert.ok(lab.mirror.chunks > 0 && lab.origin.chunks > 0);
});

test('F14: with the registry gone everything the mirror has can still be read', async () => {
  await withDragonfly(async (lab) => {
    for (const index of lab.refs.keys()) await lab.read(index);
    lab.registry.inject({ method: 'GET', reset: true });
    for (const index of lab.refs.keys()) await lab.read(index);
    assert.equal(lab.origin.requests, 0);
  });
});

test('a server that is another host takes the place of the registry', async () => {
  await using double = await FakeDragonfly.start();
  await using lab = await startMirrorLab();
  await lab.hosts(`server = "${double.url}"\n[header]\nX-Dragonfly-Registry = "http://${lab.registry.host}"\n`);
  await lab.read(0);
  assert.equal(lab.mirror.chunks, 1);
  double.inject({ status: 500 });
  await assert.rejects(lab.read(20), /answered 500/);
  assert.equal(lab.origin.requests, 0);
});

test('a mirror without the pull capability is not asked for blobs', async () => {
  await withDragonfly(async (lab, double) => {
    await lab.hosts(dragonflyHosts(double, lab.registry.host).replace('"pull", ', ''));
    await lab.read(0);
    assert.equal(double.requests.length, 0);
    assert.ok(blobReads(lab) > 0);
  });
});

test('a caller that gives up is no fault of the mirror', async () => {
  await withDragonfly(async (lab, double) => {
    double.inject({ times: 4, delayMs: 400 });
    await Promise.all(
      [0, 1, 2, 3].map((index) => assert.rejects(lab.read(index, { signal: AbortSignal.timeout(100) }))),
    );
    await sleep(500);
    double.heal();
    await lab.read(20);
    assert.equal(lab.mirror.chunks, 1);
    assert.equal(lab.origin.requests, 0);
  });
});

test('through a forward proxy the registry is asked by its own URL', async () => {
  await using double = await FakeDragonfly.start();
  await using lab = await startMirrorLab({
    chains: {
      proxy: { url: double.url, pingUrl: double.healthUrl, checkIntervalMs: 1_000, fallback: true, useHttp: true },
    },
  });
  await lab.read(0);
  const [request] = double.blobRequests();
  assert.equal(request?.url, `http://${lab.registry.host}/v2/team/app/blobs/${lab.blob.digest}`);
  assert.equal(request?.headers['x-dragonfly-use-p2p'], 'true');
  assert.equal(request?.headers['x-dragonfly-registry'], undefined);
  double.inject({ status: 500 });
  for (let index = 17; index < 24; index += 1) await lab.read(index);
  assert.ok(lab.origin.chunks > 0);
});

test('without fallback a proxy that fails fails the read', async () => {
  await using lab = await startMirrorLab({
    chains: {
      proxy: {
        url: `http://127.0.0.1:${await freePort()}`,
        pingUrl: undefined,
        checkIntervalMs: 1_000,
        fallback: false,
        useHttp: true,
      },
    },
  });
  await assert.rejects(lab.read(0), /ECONNREFUSED/);
  assert.equal(lab.origin.requests, 0);
});
