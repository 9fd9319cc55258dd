import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, type IncomingHttpHeaders } from 'node:http2';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { status } from '@grpc/grpc-js';
import { generate } from '../../proto/generate.ts';
import { ERROR_CODES, ShoalError } from '../../src/errors.ts';
import { SNAPSHOTS_DESCRIPTOR_SET } from '../../src/gen/containerd-snapshots.ts';
import { silentLogger } from '../../src/log.ts';
import { GRPC_LIMITS, type SnapshotsServer, serveSnapshots } from '../../src/snapshot/grpc.ts';
import { statusOf } from '../../src/snapshot/grpc-messages.ts';
import { noLazyLayers } from '../../src/snapshot/lazy-layers.ts';
import type { MetaStore } from '../../src/snapshot/metastore.ts';
import { createMemoryMetaStore } from '../../src/snapshot/metastores.ts';
import { createSnapshotter, type Snapshotter } from '../../src/snapshot/snapshotter.ts';
import { collect, withStatus } from '../suites/snapshotter-suite.ts';
import { connectSnapshots, type SnapshotsClient } from './client.ts';

const PATH = '/containerd.services.snapshots.v1.Snapshots';
const INVALID = withStatus(status.INVALID_ARGUMENT);

let root = '';
let socket = '';
let store: MetaStore;
let snapshotter: Snapshotter;
let server: SnapshotsServer;
let client: SnapshotsClient;

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'shoal-grpc-'));
  socket = join(root, 's.sock');
  store = createMemoryMetaStore();
  const made = await createSnapshotter({ store, lazyLayers: noLazyLayers, log: silentLogger }, { root });
  snapshotter = { ...bound(made) };
  server = await serveSnapshots({ snapshotter, log: silentLogger }, { socket });
  client = connectSnapshots(socket);
});

afterEach(async () => {
  client.close();
  await server.close();
  rmSync(root, { recursive: true, force: true });
});

/** A snapshotter whose methods a test may replace. */
function bound(real: Snapshotter): Snapshotter {
  return {
    prepare: (request, options) => real.prepare(request, options),
    view: (request, options) => real.view(request, options),
    mounts: (key, options) => real.mounts(key, options),
    commit: (request, options) => real.commit(request, options),
    remove: (key) => real.remove(key),
    stat: (key) => real.stat(key),
    update: (change, paths) => real.update(change, paths),
    list: (filters) => real.list(filters),
    usage: (key, options) => real.usage(key, options),
    cleanup: (options) => real.cleanup(options),
    close: () => real.close(),
  };
}

async function assertAlive(): Promise<void> {
  await assert.rejects(client.stat('nobody'), withStatus(status.NOT_FOUND));
}

/** Adds snapshots without their directories, all at once. */
async function fill(count: number, labels: ReadonlyMap<string, string> = new Map()): Promise<void> {
  await store.update((transaction) => {
    for (let at = 0; at < count; at += 1) transaction.createSnapshot('view', `snapshot-${at}`, '', labels);
  });
}

describe('the snapshots socket', () => {
  it('is for its owner only, and gone after close', async () => {
    assert.equal(statSync(socket).mode & 0o777, 0o600);
    await server.close();
    await server.close();
    assert.throws(() => statSync(socket));
  });
});

describe('snapshot calls', () => {
  it('keep every label, __proto__ included, and every nanosecond', async () => {
    const labels = Object.fromEntries([
      ['__proto__', 'p'],
      ['constructor', 'c'],
      ['é\0', '\u{1f600}'],
    ]);
    const key = `/../\0${'k'.repeat(5000)}`;
    await client.prepare(key, '', labels);
    const info = await client.stat(key);
    assert.deepEqual([...info.labels].sort(), Object.entries(labels).sort());
    assert.deepEqual(info, snapshotter.stat(key));
    assert.ok(info.created.nanos > 0);
  });

  it('refuse empty keys, long labels and bad filters as INVALID_ARGUMENT', async () => {
    await assert.rejects(client.call('Prepare', {}), INVALID);
    await assert.rejects(client.call('Commit', {}), INVALID);
    await assert.rejects(client.prepare('a', '', { k: 'v'.repeat(4096) }), INVALID);
    await assert.rejects(collect(client.list(['name=='])), INVALID);
    for (const method of ['Mounts', 'Remove', 'Stat', 'Usage', 'Update'] as const) {
      await assert.rejects(client.call(method, {}), withStatus(status.NOT_FOUND), method);
    }
    await client.cleanup();
  });

  it('have a status for every error code, and containerd vocabulary is kept', () => {
    for (const code of ERROR_CODES) {
      const { code: found, details } = statusOf(new ShoalError(code, 'x'.repeat(5000)));
      assert.ok(found !== status.OK && found !== status.UNKNOWN, code);
      assert.ok(details.length <= 1024);
      if (code in status) assert.equal(found, status[code as keyof typeof status]);
    }
    assert.equal(statusOf(new Error('bug')).code, status.INTERNAL);
    assert.equal(statusOf('text').code, status.INTERNAL);
  });

  it('answer INTERNAL when the snapshotter throws what it should not, at once or later', async () => {
    snapshotter.stat = () => {
      throw new TypeError('bug');
    };
    snapshotter.list = () => {
      throw new TypeError('bug');
    };
    snapshotter.usage = () => Promise.reject('no error at all');
    const internal = withStatus(status.INTERNAL);
    await assert.rejects(client.stat('a'), internal);
    await assert.rejects(collect(client.list()), internal);
    await assert.rejects(client.usage('a'), internal);
  });

  it('abort the work when the client gives up', async () => {
    let reason: unknown;
    snapshotter.mounts = (_key, { signal }) => {
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          reason = signal.reason;
          reject(signal.reason);
        });
      });
    };
    const call = client.call('Mounts', { key: 'a' }, { timeoutMs: 100 });
    await assert.rejects(call, withStatus(status.DEADLINE_EXCEEDED));
    for (let wait = 0; reason === undefined && wait < 200; wait += 1) await sleep(5);
    assert.ok(reason instanceof DOMException);
  });
});

describe('List', () => {
  it('streams more than fits into one message', async () => {
    await fill(3_000, new Map([['a', 'x'.repeat(4000)]]));
    const names = (await collect(client.list())).map(({ name }) => name);
    assert.equal(new Set(names).size, 3_000);
  });

  it('waits for a client that does not read, and holds nobody up', async () => {
    await fill(3_000, new Map([['a', 'x'.repeat(4000)]]));
    const seen: string[] = [];
    const list = snapshotter.list;
    snapshotter.list = function* (filters) {
      for (const info of list(filters)) {
        seen.push(info.name);
        yield info;
      }
    };
    // HTTP/2 itself: the gRPC client of Node reads on, whether anybody takes the messages or not.
    const session = connect('http://localhost', { createConnection: () => createConnection(socket) });
    const headers = { ':method': 'POST', ':path': `${PATH}/List`, te: 'trailers', 'content-type': 'application/grpc' };
    const stream = session.request(headers);
    stream.on('error', () => {});
    stream.end(Buffer.alloc(5));
    await sleep(300);
    assert.ok(seen.length > 0 && seen.length < 1_500, `${seen.length} of 3000 were produced for nobody`);
    await client.prepare('while-listing', '');
    await client.remove('while-listing');
    const produced = seen.length;
    await sleep(100);
    assert.equal(seen.length, produced);
    session.destroy();
    await assertAlive();
  });

  it('survives 10,000 at once, half of them given up', async () => {
    await fill(20);
    let ended = 0;
    const one = async (at: number): Promise<void> => {
      for await (const _info of client.list()) if (at % 2 === 0) break;
      ended += 1;
    };
    await Promise.all(Array.from({ length: 10_000 }, (_, at) => one(at)));
    assert.equal(ended, 10_000);
    await assertAlive();
  });
});

describe('a hostile client', () => {
  /** One raw HTTP/2 request; gives the status header or trailer, or what went wrong. */
  function raw(headers: Record<string, string>, body: Uint8Array): Promise<string> {
    return new Promise((resolve) => {
      const session = connect('http://localhost', { createConnection: () => createConnection(socket) });
      const finish = (result: string): void => {
        session.destroy();
        resolve(result);
      };
      session.on('error', (error) => finish(`error ${error.message}`));
      const stream = session.request({
        ':method': 'POST',
        te: 'trailers',
        'content-type': 'application/grpc',
        ...headers,
      });
      const look = (found: IncomingHttpHeaders): void => {
        if (found['grpc-status'] !== undefined) finish(`grpc ${found['grpc-status']}`);
        else if (found[':status'] !== '200' && Number(found[':status']) !== 200) finish(`http ${found[':status']}`);
      };
      stream.on('response', look);
      stream.on('trailers', look);
      stream.on('error', (error) => finish(`error ${error.message}`));
      stream.on('close', () => finish('closed'));
      stream.setTimeout(5_000, () => finish('silence'));
      stream.end(body);
    });
  }

  function frame(message: Uint8Array, compressed = 0): Buffer {
    const header = Buffer.alloc(5);
    header[0] = compressed;
    header.writeUInt32BE(message.byteLength, 1);
    return Buffer.concat([header, message]);
  }

  it('is refused a message above 4 MiB', async () => {
    const labels = [{ key: 'k', value: 'v'.repeat(64 * 1024 * 1024) }];
    await assert.rejects(client.call('Prepare', { key: 'a', labels }), withStatus(status.RESOURCE_EXHAUSTED));
    await assertAlive();
  });

  it('is refused a small compressed message that would be a large one', async () => {
    const bomb = frame(gzipSync(Buffer.alloc(64 * 1024 * 1024)), 1);
    const before = process.memoryUsage().rss;
    const answer = await raw({ ':path': `${PATH}/Stat`, 'grpc-encoding': 'gzip' }, bomb);
    assert.notEqual(answer, 'grpc 0');
    assert.notEqual(answer, 'silence');
    assert.ok(process.memoryUsage().rss - before < 128 * 1024 * 1024);
    await assertAlive();
  });

  it('gets an error for anything malformed, and the next client is served', async () => {
    const path = `${PATH}/Prepare`;
    const bodies = [
      Buffer.alloc(0),
      Buffer.from([0]),
      Buffer.from([0, 255, 255, 255, 255]),
      frame(Buffer.from([0x12, 0xff])),
      frame(Buffer.from([0x22, 0x02, 0x0a, 0xff])),
      frame(Buffer.alloc(100, 0xff)),
      frame(Buffer.from('garbage'), 1),
      frame(Buffer.from('garbage'), 7),
      Buffer.concat([frame(new Uint8Array(0)), frame(new Uint8Array(0))]),
    ];
    for (const body of bodies) {
      assert.notEqual(await raw({ ':path': path }, body), 'grpc 0', body.toString('hex'));
      await assertAlive();
    }
    const empty = frame(new Uint8Array(0));
    assert.equal(await raw({ ':path': `${PATH}/Nope` }, empty), `grpc ${status.UNIMPLEMENTED}`);
    assert.equal(await raw({ ':path': '/' }, empty), `grpc ${status.UNIMPLEMENTED}`);
    assert.match(await raw({ ':path': path, 'content-type': 'text/html' }, empty), /^http 415|^grpc/);
    assert.match(await raw({ ':path': path, 'grpc-timeout': 'soon' }, empty), /^grpc|^http|^closed/);
    await assertAlive();
  });

  it('may send bytes that are no HTTP/2, or hang up half way', async () => {
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\0'.repeat(1000), 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff']) {
      const connection = createConnection(socket);
      connection.on('error', () => {});
      connection.write(bytes, 'latin1');
      await sleep(20);
      connection.destroy();
      await assertAlive();
    }
  });

  it('gets no more than a fixed number of connections', async () => {
    const connections = Array.from({ length: GRPC_LIMITS.connections + 20 }, () => createConnection(socket));
    let closed = 0;
    for (const connection of connections) {
      connection.on('error', () => {});
      connection.on('close', () => {
        closed += 1;
      });
    }
    for (let wait = 0; closed < 20 && wait < 200; wait += 1) await sleep(10);
    assert.ok(closed >= 20);
    for (const connection of connections) connection.destroy();
    await sleep(50);
    await assertAlive();
  });
});

describe('the committed descriptor', () => {
  it('is what the .proto files say', () => {
    const encoded = [...generate().matchAll(/^ {2}'(.*)',$/gm)].map(([, line]) => line).join('');
    assert.equal(encoded, SNAPSHOTS_DESCRIPTOR_SET);
  });
});
