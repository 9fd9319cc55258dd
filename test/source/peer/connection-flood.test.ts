import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { sha256 } from '../../../src/core/digest.ts';
import { DATA_LIMITS } from '../../../src/source/peer/data/limits.ts';
import { createMemoryHub } from '../../../src/source/peer/memory-directory.ts';
import { createMemoryStore } from '../../../src/store/memory-store.ts';
import { randomChunks, testBlob, verified } from '../../store/blob-fixture.ts';
import { eventually, findAll } from '../../suites/peer-directory-suite.ts';
import { startMember } from './data/member.ts';
import { testSwarm } from './swarms.ts';

const limits = { timeout: 120_000 };
const ATTEMPTS = 3_000;
/** Attempts under way at a time, so that this process does not run out of files. */
const AT_ONCE = 500;
/** What both ends of a flood may cost in memory, MiB: most of it is this end's sockets. */
const GROWTH_MIB = 120;

/** Connects as often as it can to `port`, writes something, and never reads on; ends when all attempts were made. */
function flood(port: number, words: () => Uint8Array): { done: Promise<void>; stop(): void } {
  const open = new Set<Socket>();
  let made = 0;
  let stopped = false;
  const done = new Promise<void>((resolve) => {
    const next = (): void => {
      if (stopped || made >= ATTEMPTS) {
        if (open.size === 0) resolve();
        return;
      }
      made += 1;
      const socket = connect(port, '127.0.0.1', () => socket.write(words()));
      open.add(socket);
      socket.setTimeout(1_000, () => socket.destroy());
      socket.on('error', () => {});
      socket.on('close', () => {
        open.delete(socket);
        next();
      });
    };
    for (let index = 0; index < AT_ONCE; index += 1) next();
  });
  return {
    done,
    stop() {
      stopped = true;
      for (const socket of open) socket.destroy();
    },
  };
}

test(
  'L6: a host that connects thousands of times to the peer port costs bounded memory, and members are served meanwhile',
  limits,
  async () => {
    await using swarm = testSwarm();
    const target = await swarm.add();
    const other = await swarm.add();
    await swarm.connected();
    global.gc?.();
    const before = process.memoryUsage().rss;
    const attack = flood(target.status().port, () => randomBytes(100));
    try {
      for (let round = 0; round < 5; round += 1) {
        const digest = sha256(`meanwhile ${round}`);
        other.announce([digest]);
        await eventually(async () => assert.equal((await findAll(target, digest, 500)).length, 1), 10_000);
      }
      await attack.done;
    } finally {
      attack.stop();
    }
    assert.deepEqual(
      target.peers().map(({ id }) => id),
      [other.self.id],
      'nobody else was let in, and the member stayed',
    );
    const grown = (process.memoryUsage().rss - before) / 1024 ** 2;
    assert.ok(grown < GROWTH_MIB, `${grown} MiB`);
  },
);

test('L6: the same to the chunk port, beyond whose handshakes nobody is read', limits, async () => {
  const blob = testBlob(randomChunks(8, 100_000));
  const hub = createMemoryHub({ clock: systemClock });
  await using holder = await startMember(hub, { outside: createMemoryStore(await verified(blob)) });
  await holder.fill(blob);
  await using reader = await startMember(hub);
  const signal = AbortSignal.timeout(60_000);
  const read = async (index: number): Promise<void> => {
    const { digest, length } = blob.table.row(index);
    const { chunk } = await reader.client.fetch(holder.self, { digest, length }, { signal, urgency: 'demand' });
    assert.deepEqual(chunk.bytes, blob.chunks[index]);
  };
  await read(0);
  global.gc?.();
  const before = process.memoryUsage().rss;
  const attack = flood(holder.self.dataPort, () => new Uint8Array(0));
  try {
    for (let index = 1; index < 8; index += 1) await read(index);
    await attack.done;
  } finally {
    attack.stop();
  }
  const { refusedConnections, connections } = holder.plane.stats().uploads;
  assert.ok(refusedConnections > ATTEMPTS - AT_ONCE - DATA_LIMITS.handshakes, `${refusedConnections}`);
  assert.equal(connections, 1, 'the neighbour kept the connection it had');
  const grown = (process.memoryUsage().rss - before) / 1024 ** 2;
  assert.ok(grown < GROWTH_MIB, `${grown} MiB`);
});
