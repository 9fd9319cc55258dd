import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import type { Chunk, ChunkRef } from '../../src/core/chunk.ts';
import { spanName } from '../../src/core/digest.ts';
import { hasCode, ShoalError } from '../../src/errors.ts';
import type { ChunkStore, GetOptions } from '../../src/store/chunk-store.ts';
import { count, sourceCounters } from '../../src/store/count.ts';
import { dedup } from '../../src/store/dedup.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { route, withoutDigest } from '../../src/store/route.ts';
import { chunkStoreSuite } from '../suites/chunk-store-suite.ts';
import { randomChunks, testBlob, verified } from './blob-fixture.ts';

const signal = new AbortController().signal;

for (const [name, wrap] of Object.entries<(inner: ChunkStore) => ChunkStore>({
  memory: (inner) => inner,
  dedup,
  route: (inner) => route(createMemoryStore(), inner),
  count: (inner) => count({ clock: systemClock, inner }, sourceCounters('x')),
})) {
  chunkStoreSuite(name, async (contents) => {
    const blob = testBlob(contents);
    const store = wrap(createMemoryStore(await verified(blob)));
    return { store, refs: contents.map((_, index) => refOf(blob, index)) };
  });
}

test('a thousand readers of one chunk make one read, and the last to give up ends it', async () => {
  const { ref, chunk } = await one();
  const inner = new FakeStore();
  let release = (): void => {};
  inner.onGet = () => new Promise((resolve) => (release = () => resolve(chunk)));
  const store = dedup(inner);
  const reads = Array.from({ length: 1000 }, () => store.get(ref, { signal }));
  await turn();
  release();
  assert.equal(new Set(await Promise.all(reads)).size, 1);
  assert.equal(inner.gets.length, 1);

  inner.onGet = (_ref, options) =>
    new Promise((_, reject) => options.signal.addEventListener('abort', () => reject(options.signal.reason)));
  const givers = [new AbortController(), new AbortController()] as const;
  const given = givers.map(({ signal }) => store.get(ref, { signal }).catch((error: Error) => error.message));
  await turn();
  givers[0].abort(new Error('first'));
  await turn();
  assert.equal(inner.gets[1]?.options.signal.aborted, false);
  givers[1].abort(new Error('second'));
  assert.deepEqual(await Promise.all(given), ['first', 'second']);
  assert.equal(inner.gets[1]?.options.signal.aborted, true);

  inner.onGet = async () => chunk;
  assert.equal(await store.get(ref, { signal }), chunk, 'a newcomer does not join a read that was given up');
});

test('only who is alone with a chunk may free it', async () => {
  const { ref, chunk } = await one();
  const own = { ...chunk, owned: true };
  const inner = new FakeStore();
  inner.onGet = async () => own;
  const store = dedup(inner);
  assert.equal((await store.get(ref, { signal })).owned, true);
  const both = await Promise.all([store.get(ref, { signal }), store.get(ref, { signal })]);
  assert.deepEqual(
    both.map(({ owned }) => owned),
    [false, false],
  );
});

test('a prefetch becomes demand when somebody waits for it', async () => {
  const { ref, chunk } = await one();
  const inner = new FakeStore();
  let release = (): void => {};
  inner.onGet = () => new Promise((resolve) => (release = () => resolve(chunk)));
  const store = dedup(inner);
  const first = store.get(ref, { signal, urgency: 'prefetch' });
  await turn();
  assert.equal(inner.gets[0]?.options.urgency, 'prefetch');
  const second = store.get(ref, { signal, urgency: 'demand' });
  assert.equal(inner.gets[0]?.options.urgency, 'demand');
  release();
  await Promise.all([first, second]);
});

test('route moves on for a missing chunk only', async () => {
  const { ref, chunk } = await one();
  const failing = new FakeStore();
  const last = new FakeStore();
  last.onGet = async () => chunk;
  await assert.rejects(route(failing, last).get(ref, { signal }), (error) => hasCode(error, 'SOURCE_FAILED'));
  assert.equal(last.gets.length, 0);
  assert.equal(await route(createMemoryStore(), last).get(ref, { signal }), chunk);
});

test('count keeps missing, failing and giving up apart', async () => {
  const { ref, chunk } = await one();
  const inner = new FakeStore();
  const counters = sourceCounters('peer');
  const store = count({ clock: systemClock, inner }, counters);
  const reports: [string, number][] = [];
  inner.onGet = async () => chunk;
  await store.get(ref, { signal, report: (source, bytes) => reports.push([source, bytes]) });
  inner.onGet = async () => {
    throw new ShoalError('CHUNK_MISSING', 'no');
  };
  await assert.rejects(store.get(ref, { signal }));
  inner.onGet = async () => {
    throw new TypeError('bug');
  };
  await assert.rejects(store.get(ref, { signal }));
  inner.onGet = async (_ref, options) => options.signal.throwIfAborted() as never;
  await assert.rejects(store.get(ref, { signal: AbortSignal.abort() }));
  assert.deepEqual(reports, [['peer', chunk.bytes.byteLength]]);
  const { requests, active, chunks, bytes, missing, aborted, errors } = counters;
  assert.deepEqual(
    { requests, active, chunks, bytes, missing, aborted, errors },
    { requests: 4, active: 0, chunks: 1, bytes: chunk.bytes.byteLength, missing: 1, aborted: 1, errors: { OTHER: 1 } },
  );
  assert.equal(
    counters.latency.reduce((sum, each) => sum + each),
    1,
  );
});

test('a chunk without a digest is asked of the outside alone, and others never go past the inside', async () => {
  const { ref, chunk } = await one();
  const [inside, outside] = [new FakeStore(), new FakeStore()];
  inside.onGet = outside.onGet = async () => chunk;
  const store = withoutDigest(outside, inside);
  await store.get(ref, { signal });
  assert.deepEqual([inside.gets.length, outside.gets.length], [1, 0]);
  await store.get({ ...ref, digest: spanName(new Uint8Array(32)) }, { signal });
  assert.deepEqual([inside.gets.length, outside.gets.length], [1, 1]);
});

class FakeStore implements ChunkStore {
  readonly gets: { ref: ChunkRef; options: GetOptions }[] = [];
  onGet: (ref: ChunkRef, options: GetOptions) => Promise<Chunk> = async () => {
    throw new ShoalError('SOURCE_FAILED', 'broken');
  };
  has(): boolean {
    return false;
  }
  get(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    this.gets.push({ ref, options });
    return this.onGet(ref, options);
  }
  async close(): Promise<void> {}
}

function refOf(blob: ReturnType<typeof testBlob>, index: number): ChunkRef {
  const { digest, length } = blob.table.row(index);
  return { digest, length, blob: blob.digest, index };
}

async function one(): Promise<{ ref: ChunkRef; chunk: Chunk }> {
  const blob = testBlob(randomChunks(1, 100));
  return { ref: refOf(blob, 0), chunk: (await verified(blob))[0] as Chunk };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
