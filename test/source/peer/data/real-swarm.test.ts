import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import { randomChunks, testBlob } from '../../../store/blob-fixture.ts';
import { CountingSource, wrongRows } from '../../../store/store-fixture.ts';
import { eventually } from '../../../suites/peer-directory-suite.ts';
import { testSwarm } from '../swarms.ts';
import { type Join, type Member, startMember } from './member.ts';

/** A port that was free a moment ago. */
function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

test('nodes that find each other through libp2p get a cold image from outside once', { timeout: 120_000 }, async () => {
  const signal = AbortSignal.timeout(100_000);
  await using stack = new AsyncDisposableStack();
  const swarm = stack.use(testSwarm({ zone: '' }));
  const blob = testBlob(randomChunks(30, 100_000));
  const outside = await CountingSource.of(blob);
  outside.before = () => systemClock.sleep(30);
  const members: Member[] = [];
  const hub = createMemoryHub({ clock: systemClock });
  for (let node = 0; node < 4; node += 1) {
    const join: Join = async ({ held, identity }) => {
      const dataPort = await freePort();
      const directory = await swarm.add({ held, init: { dataPort, fingerprint: identity.fingerprint } });
      return { directory, self: { ...directory.self, dataPort }, leave: () => directory.stop() };
    };
    members.push(stack.use(await startMember(hub, { outside, join })));
  }
  await swarm.connected();
  const devices = await Promise.all(members.slice(0, 3).map((member) => member.open(blob)));
  await Promise.all(devices.map((device) => device.fill(0, device.size, { signal })));
  for (const device of devices) assert.deepEqual(await wrongRows(device), []);
  assert.ok(outside.gets.length <= 33, `${outside.gets.length} reads of 30 chunks went outside`);

  // Who comes later, and knows another image with the same chunks only, finds them by their digests.
  for (const device of devices) await device.flush();
  await Promise.all(swarm.nodes.map((node) => node.announced()));
  const other = testBlob([...blob.chunks].reverse());
  const late = members[3] as Member;
  const before = outside.gets.length;
  await eventually(async () => {
    const found = late.directory.find(blob.table.row(0).digest, { signal });
    assert.equal((await found[Symbol.asyncIterator]().next()).done, false);
  });
  const device = await late.open(other);
  await device.fill(0, device.size, { signal });
  assert.deepEqual(await wrongRows(device), []);
  // All 30 would without the directory; on a machine that is busy a few answers are late, and are not waited for.
  assert.ok(outside.gets.length - before <= 10, `${outside.gets.length - before} of 30 chunks came from outside`);
});
