import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import type { Logger } from '../../../src/log.ts';
import type { Swarm } from '../../../src/source/peer/swarm.ts';
import { eventually, fakeHeld, findAll } from '../../suites/peer-directory-suite.ts';
import { cidOf, loopback, stockFind, stockNode } from './stock-node.ts';
import { testSwarm } from './swarms.ts';

const limits = { timeout: 240_000 };

function digestsOf(name: string, count: number): Digest[] {
  return Array.from({ length: count }, (_, index) => sha256(`${name} ${index}`));
}

function idsOf(nodes: readonly Swarm[]): string[] {
  return nodes.map(({ self }) => self.id).sort();
}

test('a stock libp2p node finds what was announced in batches, and is found by others like it', limits, async () => {
  await using swarm = testSwarm();
  for (let index = 0; index < 5; index += 1) await swarm.add();
  await swarm.connected();
  const digests = digestsOf('stock', 200);
  swarm.nodes[1]?.announce(digests);
  swarm.nodes[2]?.announce(digests.slice(0, 1));
  await Promise.all(swarm.nodes.map((node) => node.announced()));
  const [first, second] = [await stockNode(swarm.key), await stockNode(swarm.key)];
  try {
    for (const node of [first, second]) {
      await node.dial(loopback(swarm.nodes[0]?.status().port as number));
      await eventually(() => {
        assert.ok((node.services.dht as unknown as { routingTable: { size: number } }).routingTable.size > 0);
      });
    }
    const [a, b] = [swarm.nodes[1], swarm.nodes[2]] as [Swarm, Swarm];
    await eventually(async () => assert.deepEqual(await stockFind(first, digests[0] as Digest), idsOf([a, b])), 60_000);
    for (const digest of digests.slice(1, 6)) {
      await eventually(async () => assert.deepEqual(await stockFind(first, digest), [a.self.id]), 60_000);
    }
    const own = sha256('held by the stock node');
    for await (const _ of first.services.dht.provide(cidOf(own))) void _;
    await eventually(async () => assert.deepEqual(await stockFind(second, own), [first.peerId.toString()]), 60_000);
    assert.deepEqual(await findAll(a, own, 3_000), [], 'it has no data port: nothing can be read from it');
  } finally {
    await Promise.all([first.stop(), second.stop()]);
  }
});

test('records move to the closest when a node joins, and are found when all who had them left', limits, async () => {
  await using swarm = testSwarm();
  const held = fakeHeld();
  held.digests.push(...digestsOf('moving', 300));
  const holder = await swarm.add({ held });
  for (let index = 0; index < 2; index += 1) await swarm.add();
  await swarm.connected();
  holder.announce(held.digests);
  await holder.announced();
  const later = await swarm.add();
  await swarm.connected();
  await eventually(() => assert.ok(later.status().records > 100, `${later.status().records} records moved`), 20_000);
  // All but the holder and the one that joined last go: only records that moved are left.
  await Promise.all(swarm.nodes.slice(1, 3).map((node) => node.stop()));
  await eventually(() => assert.equal(later.peers().length, 1));
  for (const digest of held.digests.slice(0, 50)) {
    assert.deepEqual(
      (await findAll(later, digest, 2_000)).map(({ id }) => id),
      [holder.self.id],
    );
  }
});

test('a restart announces nothing that is fresh', limits, async () => {
  await using swarm = testSwarm();
  await swarm.add({ name: 'other-1' });
  await swarm.add({ name: 'other-2' });
  const held = fakeHeld();
  held.digests.push(...digestsOf('restart', 500));
  const before = await swarm.add({ name: 'holder', held });
  await swarm.connected();
  await eventually(() => assert.ok(before.status().acknowledged >= 1_500), 20_000);
  await before.stop();
  swarm.nodes.pop();
  const after = await swarm.add({ name: 'holder', held });
  assert.equal(after.self.id, before.self.id, 'the identity stays');
  await swarm.connected();
  await sleep(4_000);
  // What it keeps for itself was in its memory; the two others are not told again.
  assert.equal(after.status().acknowledged, 500);
  assert.equal((await findAll(swarm.nodes[0] as Swarm, held.digests[7] as Digest, 2_000))[0]?.id, after.self.id);
});

test('a node that is alone works, and says so once', limits, async () => {
  await using swarm = testSwarm();
  const lines: string[] = [];
  const log: Logger = { debug() {}, warn() {}, error() {}, info: (message) => void lines.push(message) };
  const alone = await swarm.add({ log, init: { bootstrap: [{ host: '127.0.0.1', port: 9, id: undefined }] } });
  await alone.joined;
  alone.announce(digestsOf('alone', 10));
  await alone.announced();
  await sleep(5_000);
  assert.equal(lines.filter((line) => /alone/.test(line)).length, 1);
});

test('nodes rejoin without the bootstrap node, by the peers they knew', limits, async () => {
  await using swarm = testSwarm();
  const bootstrap = await swarm.add({ name: 'bootstrap' });
  const { port } = bootstrap.status();
  for (let index = 1; index <= 5; index += 1) await swarm.add({ name: `n${index}` });
  await swarm.connected();
  const digests = digestsOf('rejoin', 40);
  const held = fakeHeld();
  held.digests.push(...digests);
  await bootstrap.stop();
  // Two of five restart at once, with nothing but a bootstrap address where nobody is any more.
  const gone = swarm.nodes.splice(1, 2);
  await Promise.all(gone.map((node) => node.stop()));
  swarm.nodes.shift();
  const init = { bootstrap: [{ host: '127.0.0.1', port, id: undefined }] };
  await Promise.all([swarm.add({ name: 'n1', held, init }), swarm.add({ name: 'n2', init })]);
  await swarm.connected();
  assert.deepEqual(idsOf(swarm.nodes).length, 5);
  await eventually(async () => {
    for (const digest of digests) {
      const found = await findAll(swarm.nodes[2] as Swarm, digest, 1_000);
      assert.equal(found.length, 1);
    }
  }, 20_000);
});

test('a name that stands for several addresses is tried at each', limits, async () => {
  await using swarm = testSwarm();
  const first = await swarm.add();
  const init = { bootstrap: [{ host: 'localhost', port: first.status().port, id: undefined }] };
  const second = await swarm.add({ init });
  await swarm.connected();
  assert.deepEqual(
    second.peers().map(({ id }) => id),
    [first.self.id],
  );
});

test('when the coordinator of a claim is gone the next closest answers, within a read’s patience', limits, async () => {
  await using swarm = testSwarm();
  for (let index = 0; index < 5; index += 1) await swarm.add();
  await swarm.connected();
  const [claimer, ...others] = swarm.nodes as [Swarm, ...Swarm[]];
  const signal = new AbortController().signal;
  const requestOf = (region: number) => ({ blob: sha256('blob'), region, digests: digestsOf(`region ${region}`, 4) });
  await others[0]?.stop();
  for (let region = 0; region < 8; region += 1) {
    const started = performance.now();
    const answers = await claimer.claim(requestOf(region), { signal });
    assert.ok(answers.every(({ kind }) => kind === 'granted'));
    assert.ok(performance.now() - started < 10_000);
  }
  const survivor = others[1] as Swarm;
  let region = 100;
  await eventually(async () => {
    // Another region each time: its coordinator is one of those that are left.
    region += 1;
    await claimer.claim(requestOf(region), { signal });
    for (const answer of await survivor.claim(requestOf(region), { signal })) {
      assert.equal(answer.kind === 'ask' ? answer.holders[0]?.id : '', claimer.self.id);
    }
  }, 30_000);
});
