import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../../../src/clock.ts';
import { type Digest, sha256 } from '../../../../src/core/digest.ts';
import { parseReference } from '../../../../src/image/reference.ts';
import { createLocalIndexes } from '../../../../src/lazy/local-indexes.ts';
import { createNeighbourIndexes } from '../../../../src/lazy/neighbour-indexes.ts';
import { createSharedIndexes } from '../../../../src/lazy/shared-indexes.ts';
import { silentLogger } from '../../../../src/log.ts';
import {
  indexKey,
  indexTarget,
  MAX_SENT_INDEX_BYTES,
  parseIndexTarget,
  type SharedIndexes,
} from '../../../../src/source/peer/data/index-request.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import type { BlobStore } from '../../../../src/store/blob-store.ts';
import { startHostileNeighbour } from '../../../fakes/hostile-neighbour.ts';
import { type Member, startMember } from './member.ts';

const LAYER = sha256('a layer');

test('a neighbour sends the index that it announced, byte for byte', async () => {
  const bytes = randomBytes(3_000_000);
  await using lab = await scene(shared(bytes));
  assert.deepEqual(await indexesOf(lab.reader), [bytes]);
  // The last byte may be here before the holder hears that it left.
  while (lab.holder.plane.stats().uploads.active > 0) await systemClock.sleep(5);
  const { uploads } = lab.holder.plane.stats();
  assert.deepEqual([uploads.chunks, uploads.bytes], [1, bytes.byteLength]);
  const announced: Digest[] = [];
  for await (const digests of lab.held()) announced.push(...digests);
  assert.deepEqual(announced, [indexKey(LAYER)]);
});

test('one that has none, too much, or lost it meanwhile gives none', async () => {
  for (const indexes of [
    undefined,
    { ...shared(new Uint8Array(1)), sizeOf: async () => undefined },
    { ...shared(new Uint8Array(1)), sizeOf: async () => MAX_SENT_INDEX_BYTES + 1 },
    { ...shared(new Uint8Array(1)), read: async () => undefined },
  ]) {
    await using lab = await scene(indexes);
    assert.deepEqual(await indexesOf(lab.reader), []);
  }
});

test('a neighbour that misbehaves costs its turn only', { timeout: 60_000 }, async () => {
  const bytes = randomBytes(100_000);
  for (const misdeed of [
    'another certificate',
    'reset in the middle',
    'truncation',
    'a redirect',
    'endless headers',
  ] as const) {
    await using stack = new AsyncDisposableStack();
    const hub = createMemoryHub({ clock: systemClock });
    const hostile = stack.use(
      await startHostileNeighbour(hub, { misdeed, rows: 1, length: 1000, announces: [indexKey(LAYER)] }),
    );
    const holder = stack.use(await startMember(hub, { indexes: shared(bytes) }));
    holder.directory.announce([indexKey(LAYER)]);
    const reader = stack.use(await startMember(hub));
    assert.deepEqual(await indexesOf(reader), [bytes], misdeed);
    assert.ok(misdeed === 'another certificate' || hostile.asked() > 0);
  }
});

test('an index that makes no sense is passed over for the next one', async () => {
  const lab = {
    async *indexes() {
      yield randomBytes(100);
    },
  };
  const { signal } = new AbortController();
  const source = createNeighbourIndexes({ plane: lab, log: silentLogger });
  assert.equal(await source.find(LAYER, { ...parseReference('r/a'), manifest: undefined }, { signal }), undefined);
});

test('indexes are given away only of layers that are here and may be shared', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'shoal-indexes-'));
  t.after(() => rm(directory, { recursive: true }));
  const indexes = createLocalIndexes({ log: silentLogger }, { directory, maxBytes: 1 << 20 });
  const bytes = randomBytes(1000);
  await indexes.put(LAYER, bytes);
  const give = (here: boolean, shareable: boolean): SharedIndexes =>
    createSharedIndexes({
      indexes,
      blobs: { opened: () => (here ? {} : undefined) } as unknown as BlobStore,
      shareable: () => shareable,
    });
  assert.deepEqual([await give(true, true).sizeOf(LAYER), await give(true, true).list()], [1000, [LAYER]]);
  assert.deepEqual(Buffer.from((await give(true, true).read(LAYER)) ?? []), bytes);
  for (const none of [give(false, true), give(true, false)]) {
    assert.deepEqual([await none.sizeOf(LAYER), await none.read(LAYER), await none.list()], [undefined, undefined, []]);
  }
});

test('only what names a layer is a request for an index', () => {
  assert.equal(parseIndexTarget(indexTarget(LAYER)), LAYER);
  const hex = 'a'.repeat(64);
  for (const target of [
    '',
    '/index/',
    `/index/sha256/${hex}0`,
    `/index/blake3/${hex}`,
    `/index/sha256/${hex}?x`,
    `/index/span/${hex}`,
    `/index/sha256/../${hex}`,
    7,
  ]) {
    assert.equal(parseIndexTarget(target), undefined, String(target));
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      const layer = parseIndexTarget(`/index/${text}`);
      assert.ok(layer === undefined || indexTarget(layer) === `/index/${text}`);
    }),
  );
});

function shared(bytes: Uint8Array): SharedIndexes {
  const mine = (layer: Digest): boolean => layer === LAYER;
  return {
    sizeOf: async (layer) => (mine(layer) ? bytes.byteLength : undefined),
    read: async (layer) => (mine(layer) ? bytes : undefined),
    list: async () => [LAYER],
  };
}

/** A member that announced an index, and one that looks for it. */
async function scene(indexes: SharedIndexes | undefined) {
  const stack = new AsyncDisposableStack();
  const hub = createMemoryHub({ clock: systemClock });
  const holder = stack.use(await startMember(hub, indexes === undefined ? {} : { indexes }));
  holder.directory.announce([indexKey(LAYER)]);
  const reader = stack.use(await startMember(hub));
  return {
    holder,
    reader,
    held: () => hub.members.get(holder.self.id)?.held.all() ?? [],
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function indexesOf({ plane }: Member): Promise<Buffer[]> {
  const found: Buffer[] = [];
  const signal = AbortSignal.timeout(30_000);
  for await (const bytes of plane.indexes(LAYER, { signal })) found.push(Buffer.from(bytes));
  return found;
}
