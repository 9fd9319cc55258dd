import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { ShoalError } from '../../src/errors.ts';
import { createPrefetcher } from '../../src/lazy/prefetch.ts';
import { silentLogger } from '../../src/log.ts';
import type { BlobDevice } from '../../src/store/blob-device.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { waitFor } from '../lab/process.ts';
import { randomChunks, testBlob, verified } from '../store/blob-fixture.ts';
import { contentOf, openStore, stateRoot } from '../store/store-fixture.ts';

const MIB = 1024 * 1024;
const on = { enabled: true, bytesPerSecond: 0, group: '' };

/** A device of `mib` chunks of 1 MiB whose reads are noted, and a prefetcher over it. */
async function bench(mib: number, init: { hints?: boolean; prefetchBytes?: number } = {}) {
  const stack = new AsyncDisposableStack();
  const root = stack.use(await stateRoot());
  const store = stack.use(await openStore(root.path, { readahead: false }));
  const blob = testBlob(randomChunks(mib, MIB));
  const inner = createMemoryStore(await verified(blob));
  const state = { waiting: false, policy: on, fail: false, node: 'a' };
  const fetched: number[] = [];
  const source: ChunkStore = {
    ...inner,
    has: (ref) => inner.has(ref),
    async get(ref, options) {
      assert.equal(options.urgency, 'prefetch');
      fetched.push(ref.index);
      if (state.fail) throw new ShoalError('SOURCE_FAILED', 'away');
      return await inner.get(ref, options);
    },
  };
  store.connect(source);
  const content = contentOf(blob);
  const info = { ...content.info, prefetchBytes: init.prefetchBytes ?? 0 };
  const device: BlobDevice = await store.create(blob.digest, { ...content, info });
  const prefetcher = createPrefetcher(
    {
      log: silentLogger,
      clock: systemClock,
      demandWaiting: () => state.waiting,
      policyOf: () => state.policy,
      isOpen: ({ blob }) => store.opened(blob) !== undefined,
    },
    { hints: init.hints ?? false, node: state.node },
  );
  stack.defer(() => prefetcher.stop());
  return { stack, store, device, state, fetched, prefetcher };
}

test('the background completes a layer whose policy says so, and leaves the others', async () => {
  const { stack, device, prefetcher, state, fetched } = await bench(10);
  await using _ = stack;
  state.policy = { ...on, enabled: false };
  prefetcher.add(device);
  assert.deepEqual(prefetcher.stats(), { state: 'idle', layers: 0, bytes: 0 });
  await prefetcher.stop();
  const other = await bench(10);
  await using _other = other.stack;
  other.prefetcher.add(other.device);
  await waitFor('a complete layer', () => other.device.complete);
  await waitFor('an idle background', () => other.prefetcher.stats().state === 'idle');
  assert.deepEqual(other.prefetcher.stats(), { state: 'idle', layers: 0, bytes: 10 * MIB });
  assert.deepEqual(fetched, []);
  assert.deepEqual(
    other.fetched.toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
});

test('while somebody waits for a cold read the background rests, and goes on afterwards', async () => {
  const { stack, device, prefetcher, state, fetched } = await bench(10);
  await using _ = stack;
  state.waiting = true;
  prefetcher.add(device);
  await systemClock.sleep(200);
  assert.deepEqual(fetched, []);
  assert.equal(prefetcher.stats().state, 'paused');
  state.waiting = false;
  await waitFor('a complete layer', () => device.complete);
});

test('a start gets the bytes that the image marks at once, even while readers wait', async () => {
  const { stack, device, prefetcher, state, fetched } = await bench(10, { hints: true, prefetchBytes: 3 * MIB });
  await using _ = stack;
  state.waiting = true;
  prefetcher.add(device);
  await waitFor('the marked bytes', () => device.hasChunk(2));
  await systemClock.sleep(100);
  assert.deepEqual(fetched, [0, 1, 2]);
});

test('the rate of the background is kept', async () => {
  const { stack, device, prefetcher, state } = await bench(13);
  await using _ = stack;
  state.policy = { enabled: true, bytesPerSecond: 8 * MIB, group: 'slow' };
  const startedMs = performance.now();
  prefetcher.add(device);
  await waitFor('a complete layer', () => device.presence.complete);
  // 8 MiB may go at once; of the other five at least one piece waits for the rate
  assert.ok(performance.now() - startedMs > 80, `${performance.now() - startedMs} ms`);
});

test('a source that fails is asked again later, and a layer that was removed is dropped', async () => {
  const { stack, store, device, prefetcher, state, fetched } = await bench(4);
  await using _ = stack;
  state.fail = true;
  prefetcher.add(device);
  await waitFor('a failure', () => fetched.length > 0);
  await systemClock.sleep(100);
  assert.equal(prefetcher.stats().layers, 1);
  state.fail = false;
  await waitFor('a complete layer', () => device.presence.complete);
  await store.remove(device.blob);
  await waitFor('an idle background', () => prefetcher.stats().layers === 0);
});

test('a start that neighbours may share fetches the marked parts of all layers, whichever fails first', async () => {
  const [one, other] = [
    await bench(8, { hints: true, prefetchBytes: 8 * MIB }),
    await bench(8, { hints: true, prefetchBytes: 8 * MIB }),
  ];
  await using _one = one.stack;
  await using _other = other.stack;
  one.state.fail = true;
  const prefetcher = createPrefetcher(
    {
      log: silentLogger,
      clock: systemClock,
      demandWaiting: () => false,
      policyOf: () => ({ ...on, enabled: false }),
      isOpen: () => true,
    },
    { hints: true, node: 'a', isShared: true },
  );
  prefetcher.add(one.device);
  prefetcher.add(other.device);
  await waitFor('the other layer', () => other.device.presence.complete);
  await waitFor('an end', () => prefetcher.stats().state === 'idle');
  assert.ok(one.fetched.length > 0 && !one.device.hasChunk(0));
  await prefetcher.stop();
});
