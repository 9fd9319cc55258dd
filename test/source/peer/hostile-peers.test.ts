import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { test } from 'node:test';
import type { Libp2p, Stream } from '@libp2p/interface';
import { sha256 } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import { encodeFrame } from '../../../src/source/peer/frames.ts';
import { SWARM_LIMITS } from '../../../src/source/peer/limits.ts';
import { encodeHello, encodePeers, MESSAGE } from '../../../src/source/peer/messages.ts';
import { startNode } from '../../../src/source/peer/node.ts';
import type { Swarm } from '../../../src/source/peer/swarm.ts';
import { eventually, findAll } from '../../suites/peer-directory-suite.ts';
import { loopback, stockNode } from './stock-node.ts';
import { newKey, testSwarm } from './swarms.ts';

const limits = { timeout: 120_000 };
const PROTOCOL = '/shoal/swarm/1.0.0';
const HELLO = encodeHello({
  version: 1,
  instance: randomBytes(8),
  listenPort: 0,
  dataPort: 0,
  fingerprint: randomBytes(32),
  zone: '',
});

/** All bytes a raw connection is sent before the other side ends it, or `forMs` passed. */
function bytesFrom(port: number, bytes: Uint8Array, forMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    let received = 0;
    const socket = connect(port, '127.0.0.1', () => socket.write(bytes));
    const timer = setTimeout(() => socket.destroy(), forMs);
    socket.on('data', (part) => {
      received += part.length;
    });
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? undefined : reject(error)));
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(received);
    });
  });
}

async function open(node: Libp2p, target: Swarm): Promise<Stream> {
  const connection = await node.dial(loopback(target.status().port));
  return await connection.newStream(PROTOCOL);
}

/** Resolves when the other side reset or closed the stream. */
async function ended(stream: Stream): Promise<void> {
  await eventually(() => assert.notEqual(stream.status, 'open'), 5_000);
}

test('S1: without the key, or with another, nobody learns more than a nonce', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const { port } = target.status();
  for (const [name, node] of [
    ['no key', await stockNode(undefined)],
    ['another key', await stockNode(newKey())],
  ] as const) {
    for (let round = 0; round < 5; round += 1) {
      await assert.rejects(node.dial(loopback(port), { signal: AbortSignal.timeout(1_000) }), name);
    }
    assert.equal((await node.peerStore.all()).filter(({ protocols }) => protocols.length > 0).length, 0);
    await node.stop();
  }
  assert.deepEqual(target.peers(), []);
  assert.equal(target.status().peers.length, 0);
});

test('S16: before a peer is admitted it is sent no more than it sent', limits, async () => {
  await using swarm = testSwarm();
  const { port } = (await swarm.add()).status();
  for (const length of [24, 100, 5_000]) {
    const received = await bytesFrom(port, randomBytes(length), 1_500);
    assert.ok(received <= length, `${received} bytes for ${length}`);
  }
});

test('S1: a banned id with the right key is refused, until the ban is over', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const node = await stockNode(swarm.key);
  try {
    await open(node, target);
    target.ban(node.peerId.toString(), { reason: 'test', forMs: 2_000 });
    await eventually(() => assert.equal(node.getConnections().length, 0));
    await assert.rejects(async () => {
      const stream = await open(node, target);
      stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
      await ended(stream);
      throw new Error('refused');
    });
    assert.equal(target.peers().length, 0);
    await eventually(async () => {
      const stream = await open(node, target);
      stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
      await eventually(() => assert.equal(target.peers().length, 1), 1_000);
    }, 10_000);
  } finally {
    await node.stop();
  }
});

test('S1: a node without a key does not listen', async () => {
  const { generateKeyPair } = await import('@libp2p/crypto/keys');
  const listen = { host: '127.0.0.1', port: 0 };
  await assert.rejects(
    startNode(
      { datastore: {} as Parameters<typeof startNode>[0]['datastore'], isRefused: () => false },
      { privateKey: await generateKeyPair('Ed25519'), key: undefined, listen, connectionsMax: 10, allowLoopback: true },
    ),
    (error) => hasCode(error, 'CONFIG_INVALID'),
  );
});

test('S1: only TCP is spoken, and nothing but what the swarm needs is offered', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const node = await stockNode(swarm.key);
  try {
    await node.dial(loopback(target.status().port));
    await eventually(async () => {
      const [peer] = await node.peerStore.all();
      assert.deepEqual([...(peer?.protocols ?? [])].sort(), [
        '/ipfs/id/1.0.0',
        '/ipfs/ping/1.0.0',
        '/shoal/kad/1.0.0',
        PROTOCOL,
      ]);
      for (const { multiaddr } of peer?.addresses ?? [])
        assert.match(multiaddr.toString(), /^\/ip[46]\/[^/]+\/tcp\/\d+$/);
    });
  } finally {
    await node.stop();
  }
});

const BAD: Record<string, Uint8Array> = {
  'a length of 2^32-1': Buffer.from('ffffffff', 'hex'),
  'a length of 0': Buffer.from('00000000', 'hex'),
  'an unknown type': encodeFrame(77, 1, new Uint8Array(3)),
  'an answer nobody asked for': encodeFrame(0x85, 1, new Uint8Array(3)),
  'a key of 31 bytes': encodeFrame(MESSAGE.find, 1, new Uint8Array(31)),
  'more keys than a batch has': encodeFrame(MESSAGE.announce, 1, new Uint8Array(32 * 2_049)),
  'a claim of 10^6 chunks': encodeFrame(
    MESSAGE.claim,
    1,
    Buffer.concat([new Uint8Array(37), Buffer.from('ffff', 'hex')]),
  ),
  'a Hello of another version': encodeFrame(MESSAGE.hello, 1, HELLO.with(0, 9)),
};

test('B10: every bad frame resets its stream, and the third closes the connection', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const names = Object.keys(BAD);
  for (let from = 0; from + 3 <= names.length + 1; from += 3) {
    const node = await stockNode(swarm.key);
    try {
      for (const [index, name] of names.slice(from, from + 3).entries()) {
        const stream = await open(node, target);
        stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
        stream.send(BAD[name] as Uint8Array);
        await ended(stream).catch(() => assert.fail(`${name} was accepted`));
        const isThird = index === 2;
        if (isThird) await eventually(() => assert.equal(node.getConnections().length, 0, name));
        else assert.equal(node.getConnections().length, 1, name);
      }
    } finally {
      await node.stop();
    }
  }
});

test(
  'B10: a million tiny frames are taken slowly, cost bounded memory, and others are served meanwhile',
  limits,
  async () => {
    await using swarm = testSwarm();
    const target = await swarm.add();
    const other = await swarm.add();
    await swarm.connected();
    const node = await stockNode(swarm.key);
    try {
      const stream = await open(node, target);
      let answers = 0;
      stream.addEventListener('message', ({ data }) => {
        answers += data.byteLength;
      });
      stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
      const burst = Buffer.concat(
        Array.from({ length: 1_000 }, (_, index) => encodeFrame(MESSAGE.peers, index + 2, new Uint8Array(0))),
      );
      global.gc?.();
      const before = process.memoryUsage().rss;
      let sent = 0;
      const end = performance.now() + 5_000;
      while (sent < 1_000_000 && performance.now() < end && stream.status === 'open') {
        stream.send(burst);
        sent += 1_000;
        if (stream.writableNeedsDrain)
          await stream.onDrain({ signal: AbortSignal.timeout(5_000) }).catch(() => undefined);
      }
      other.announce([sha256('meanwhile')]);
      await eventually(async () => assert.equal((await findAll(target, sha256('meanwhile'), 500)).length, 1));
      assert.ok(answers > 0);
      const grown = (process.memoryUsage().rss - before) / 1024 ** 2;
      assert.ok(grown < 150, `${grown} MiB for both ends`);
    } finally {
      await node.stop();
    }
  },
);

test('L7: a flood of announcements is slowed down and capped', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const node = await stockNode(swarm.key);
  try {
    const stream = await open(node, target);
    let acknowledged = 0;
    stream.addEventListener('message', () => {
      acknowledged += 1;
    });
    stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
    const started = performance.now();
    for (let index = 0; index < 25; index += 1) {
      stream.send(encodeFrame(MESSAGE.announce, index + 2, randomBytes(32 * SWARM_LIMITS.keysPerBatch)));
    }
    await eventually(() => assert.equal(target.status().records, 25 * SWARM_LIMITS.keysPerBatch), 20_000);
    const seconds = (performance.now() - started) / 1_000;
    assert.ok(seconds > 1.3, `25 batches at 10 a second took ${seconds} s`);
    assert.ok(acknowledged > 0);
  } finally {
    await node.stop();
  }
});

test('S6: names of peers never send this node to its own host or to metadata services', limits, async () => {
  const { multiaddr } = await import('@multiformats/multiaddr');
  const { generateKeyPair } = await import('@libp2p/crypto/keys');
  const parts = { datastore: {} as Parameters<typeof startNode>[0]['datastore'], isRefused: () => false };
  const node = await startNode(parts, {
    privateKey: await generateKeyPair('Ed25519'),
    key: newKey(),
    listen: { host: '127.0.0.1', port: 0 },
    connectionsMax: 10,
    allowLoopback: false,
  });
  const { createServer } = await import('node:net');
  const touched: string[] = [];
  const trap = createServer((socket) => {
    touched.push(String(socket.remoteAddress));
    socket.destroy();
  });
  await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve));
  try {
    const { port } = trap.address() as { port: number };
    for (const host of ['127.0.0.1', '169.254.169.254', '::1', '0.0.0.0', '::ffff:127.0.0.1']) {
      await assert.rejects(node.dial({ host, port }), (error) => hasCode(error, 'UNAVAILABLE'));
    }
    assert.deepEqual(touched, []);
    assert.ok(multiaddr('/ip4/127.0.0.1/tcp/1'));
  } finally {
    trap.close();
    await node.stop();
  }
});

test('lists of peers that name strangers cost dials, and nobody’s place', limits, async () => {
  await using swarm = testSwarm();
  const target = await swarm.add();
  const friend = await swarm.add();
  await swarm.connected();
  const liar = await stockNode(swarm.key);
  try {
    const strangers = Array.from({ length: 50 }, () => ({
      id: Buffer.concat([Buffer.from([0, 36, 8, 1, 18, 32]), randomBytes(32)]),
      host: '127.0.0.1',
      port: 9,
    }));
    await liar.handle(PROTOCOL, (stream) => {
      stream.addEventListener('message', ({ data }) => {
        // Whatever is asked first is answered with a Hello, then with a list of strangers.
        const bytes = data.subarray();
        const [type, id] = [bytes[4] as number, new DataView(bytes.buffer, bytes.byteOffset).getUint32(5)];
        stream.send(encodeFrame(type | 0x80, id, type === MESSAGE.hello ? HELLO : encodePeers(strangers)));
      });
    });
    const stream = await open(liar, target);
    stream.send(encodeFrame(MESSAGE.hello, 1, HELLO));
    await eventually(() => assert.ok(target.status().peers.length > 10));
    friend.announce([sha256('true')]);
    await eventually(async () => {
      const found = await findAll(target, sha256('true'), 1_000);
      assert.deepEqual(
        found.map(({ id }) => id),
        [friend.self.id],
      );
    });
    await eventually(() => {
      const away = target.status().peers.filter(({ state }) => state === 'away');
      assert.ok(away.length > 40, `${away.length} of 50 are away`);
    });
  } finally {
    await liar.stop();
  }
});
