import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasCode } from '../../../src/errors.ts';
import type { RegistryClient } from '../../../src/source/origin/registry-client.ts';
import type { Urgency } from '../../../src/store/chunk-store.ts';
import { FakeRegistry } from '../../fakes/registry.ts';
import { imageAt, randomBytes, soon, testClient } from './setup.ts';

async function setup(init: Parameters<typeof testClient>[0] = {}) {
  const registry = await FakeRegistry.start();
  const client: RegistryClient = testClient(init);
  const bytes = randomBytes(100_000);
  const digest = registry.addBlob(bytes);
  const blob = await client.blob(imageAt(registry.host), { digest, size: bytes.length }, { signal: soon() });
  return {
    registry,
    client,
    blob,
    read: (offset: number, urgency: Urgency = 'demand', signal = soon(20_000)) =>
      blob.read(offset, 100, { signal, urgency }),
    async [Symbol.asyncDispose]() {
      await client.close();
      await registry.close();
    },
  };
}

test('a registry that says 429 is left alone by all readers for as long as it asked, and then all are served', async () => {
  for (const status of [429, 503]) {
    await using fake = await setup({ init: { connections: 8 } });
    fake.registry.inject({ status, headers: { 'retry-after': '1' }, times: 8 });
    const startedAt = performance.now();
    const seen: number[] = [];
    const reads = Array.from({ length: 200 }, async (_, index) => {
      await fake.read(index * 10);
      seen.push(performance.now() - startedAt);
    });
    await sleep(700);
    const asked = fake.registry.count();
    assert.ok(asked <= 8, `${asked} requests while it is to be left alone`);
    await Promise.all(reads);
    assert.ok((seen[0] ?? 0) >= 1_000, `first after ${seen[0]} ms`);
    assert.equal(fake.registry.count(), 8 + 200, 'nobody asked in vain again');
  }
});

test('a registry that stays busy is asked by one reader at a time, ever more seldom', async () => {
  await using fake = await setup();
  fake.registry.inject({ status: 503 });
  const signal = soon(4_000);
  const reads = Array.from({ length: 100 }, (_, index) => fake.read(index * 10, 'demand', signal));
  const results = await Promise.allSettled(reads);
  for (const result of results) {
    assert.ok(result.status === 'rejected' && hasCode(result.reason, 'DEADLINE_EXCEEDED'), JSON.stringify(result));
  }
  // All places at once, then one after 1 s and one after another 2 s.
  assert.ok(fake.registry.count() <= 16 + 2, `${fake.registry.count()} requests`);
});

test('who is asked to wait for longer than anybody waits is told at once', async () => {
  await using fake = await setup();
  fake.registry.inject({ status: 429, headers: { 'retry-after': '120' }, times: 1 });
  await assert.rejects(fake.read(0), (error) => hasCode(error, 'REGISTRY_RESPONSE') && error.context.status === 429);
  const startedAt = performance.now();
  await assert.rejects(
    fake.read(0),
    (error) =>
      hasCode(error, 'REGISTRY_RESPONSE') &&
      /asked not to be asked/.test(error.message) &&
      (error.context.retryAfterMs ?? 0) > 100_000,
  );
  assert.ok(performance.now() - startedAt < 1_000);
  assert.equal(fake.registry.count(), 1);
});

test('readers go before prefetch, also before prefetch that came first; one that is joined by a reader goes along', async () => {
  await using fake = await setup({ init: { connections: 2 } });
  fake.registry.inject({ delayMs: 30 });
  const order: string[] = [];
  const note = (name: string) => () => void order.push(name);
  const joined: { signal: AbortSignal; urgency: Urgency } = { signal: soon(), urgency: 'prefetch' };
  const reads = [
    ...Array.from({ length: 6 }, (_, index) => fake.read(index * 10, 'prefetch').then(note('prefetch'))),
    fake.blob.read(90, 100, joined).then(note('joined')),
    ...Array.from({ length: 4 }, (_, index) => fake.read(index * 10).then(note('demand'))),
  ];
  joined.urgency = 'demand';
  await Promise.all(reads);
  // The first prefetch was under way already.
  assert.deepEqual(new Set(order.slice(0, 6)), new Set(['prefetch', 'demand', 'joined']));
  assert.deepEqual(
    order.slice(6),
    Array.from({ length: 5 }, () => 'prefetch'),
  );
  assert.ok(fake.registry.connections <= 2);
});

test('a registry that is away is asked by one reader for all, and all are served soon after it is back', async () => {
  await using fake = await setup();
  fake.registry.inject({ reset: true });
  const reads = Array.from({ length: 100 }, (_, index) => fake.read(index * 10));
  await sleep(2_000);
  const asked = fake.registry.count();
  assert.ok(asked < 60, `${asked} requests in vain`);
  fake.registry.heal();
  const healedAt = performance.now();
  await Promise.all(reads);
  assert.ok(performance.now() - healedAt < 8_000, `${performance.now() - healedAt} ms`);
});

test('who has another way to go is told of an outage soon', async () => {
  await using fake = await setup();
  fake.registry.inject({ reset: true });
  const where = imageAt(fake.registry.host);
  const options = { signal: soon(), retryBudgetMs: 300 };
  const blob = await fake.client.blob(where, { digest: fake.blob.digest, size: fake.blob.size }, options);
  for (let round = 0; round < 2; round += 1) {
    const startedAt = performance.now();
    const away = (error: unknown): boolean => hasCode(error, 'SOURCE_FAILED');
    await assert.rejects(blob.read(0, 100, { signal: soon() }), away);
    await assert.rejects(fake.client.resolve(where, options), away);
    assert.ok(performance.now() - startedAt < 4_000, `${performance.now() - startedAt} ms`);
  }
});

test('an outage is waited for as long as the budget lasts, whoever begins when', async () => {
  await using fake = await setup({ init: { retryBudgetMs: 1_500 } });
  fake.registry.inject({ reset: true });
  const startedAt = performance.now();
  const tookMs = async (read: Promise<unknown>): Promise<number> => {
    await assert.rejects(read, (error) => hasCode(error, 'SOURCE_FAILED'));
    return performance.now() - startedAt;
  };
  const first = tookMs(fake.read(0));
  await sleep(1_000);
  const [firstMs, lateMs] = await Promise.all([first, tookMs(fake.read(10))]);
  assert.ok(firstMs >= 1_500 && firstMs < 3_500, `${firstMs} ms`);
  assert.ok(lateMs >= 1_400 && lateMs < 3_500, `${lateMs} ms: not another whole budget`);
  fake.registry.heal();
  await fake.read(0);
});
