import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/core/digest.ts';
import { createOriginStore, type OriginStoreInit } from '../../../../src/source/origin/origin-store.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import type { BlobStore } from '../../../../src/store/blob-store.ts';
import type { ChunkStore } from '../../../../src/store/chunk-store.ts';
import { FakeRangedBlob, randomChunks, type TestBlob, testBlob } from '../../../store/blob-fixture.ts';
import { wrongRows } from '../../../store/store-fixture.ts';
import { type Member, startMember } from './member.ts';

const NODES = 8;

/** A registry behind a link: counts what it gives, `bytesPerMs` over all requests together. */
class SharedOrigin {
  readonly ranged: FakeRangedBlob;
  bytes = 0;
  #freeAtMs = 0;

  constructor(blob: TestBlob, bytesPerMs: number) {
    this.ranged = new FakeRangedBlob(blob);
    const inner = this.ranged.read.bind(this.ranged);
    this.ranged.read = async (offset, length, options) => {
      this.bytes += length;
      const now = performance.now();
      this.#freeAtMs = Math.max(now + 5, this.#freeAtMs) + length / bytesPerMs;
      await systemClock.sleep(this.#freeAtMs - now, { signal: options.signal });
      return await inner(offset, length, options);
    };
  }

  store(blobs: BlobStore, init: OriginStoreInit): ChunkStore {
    return createOriginStore(
      { blobs: { table: (blob: Digest) => blobs.opened(blob)?.table, ranged: () => this.ranged } },
      init,
    );
  }
}

async function crowd(blob: TestBlob, init: OriginStoreInit = {}, bytesPerMs = 12_000) {
  const hub = createMemoryHub({ clock: systemClock });
  const origin = new SharedOrigin(blob, bytesPerMs);
  const stack = new AsyncDisposableStack();
  const members: Member[] = [];
  for (let node = 0; node < NODES; node += 1) {
    members.push(stack.use(await startMember(hub, { outsideOf: (blobs) => origin.store(blobs, init) })));
  }
  const devices = await Promise.all(members.map((member) => member.open(blob)));
  return { members, devices, origin, stack };
}

function totals(members: readonly Member[]) {
  const sum = (pick: (member: Member) => number): number => members.reduce((all, each) => all + pick(each), 0);
  return {
    outside: sum(({ counters }) => counters.outside.chunks),
    neighbour: sum(({ counters }) => counters.neighbour.chunks),
    hedges: sum(({ neighbours }) => neighbours.stats().hedges),
  };
}

/** Reads the whole device in pieces, one after the other, as a container that starts does. */
async function readThrough(
  device: {
    fill: Member['blobs'] extends never ? never : (o: number, l: number, s: { signal: AbortSignal }) => Promise<void>;
    size: number;
  },
  order: readonly number[],
  piece: number,
) {
  for (const index of order) {
    const offset = index * piece;
    if (offset < device.size)
      await device.fill(offset, Math.min(piece, device.size - offset), { signal: AbortSignal.timeout(60_000) });
  }
}

for (const { title, blob, init } of [
  { title: 'large chunks', blob: testBlob(randomChunks(40, 500_000)), init: {} },
  { title: 'small files', blob: testBlob(randomChunks(1_500, 7_000)), init: {} },
  { title: 'many chunks in one extent', blob: testBlob(randomChunks(600, 20_000), { perExtent: 50 }), init: {} },
]) {
  test(`eight nodes that start the same cold image at once fetch it once: ${title}`, { timeout: 120_000 }, async () => {
    const { members, devices, origin, stack } = await crowd(blob, init);
    await using _ = stack;
    const piece = 131_072;
    const pieces = Array.from({ length: Math.ceil((devices[0]?.size ?? 0) / piece) }, (_unused, index) => index);
    const started = performance.now();
    await Promise.all(devices.map((device) => readThrough(device, pieces, piece)));
    const ms = performance.now() - started;
    const ratio = origin.bytes / blob.compressed.length;
    console.log(title, {
      ratio,
      ms,
      idealMs: blob.compressed.length / 12_000,
      ...totals(members),
      requests: origin.ranged.reads.length,
    });
    for (const device of devices) assert.deepEqual(await wrongRows(device), []);
    assert.ok(ratio <= 1.1, `the registry sent ${ratio} times the image`);
  });
}
