import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../../../src/clock.ts';
import type { Digest } from '../../../../src/core/digest.ts';
import { HEDGE_LIMITS } from '../../../../src/core/policy/hedge-limits.ts';
import { createOriginStore, type OriginStoreInit } from '../../../../src/source/origin/origin-store.ts';
import { createMemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import type { BlobDevice } from '../../../../src/store/blob-device.ts';
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

/** Reads the whole device in pieces, one after the other, as a container that starts does. */
async function readThrough(device: BlobDevice, piece: number): Promise<void> {
  for (let offset = 0; offset < device.size; offset += piece) {
    const length = Math.min(piece, device.size - offset);
    await device.fill(offset, length, { signal: AbortSignal.timeout(60_000) });
  }
}

for (const { title, blob, init } of [
  { title: 'large chunks', blob: testBlob(randomChunks(100, 200_000)), init: {} },
  { title: 'small files', blob: testBlob(randomChunks(150, 7_000)), init: {} },
  { title: 'many chunks in one extent', blob: testBlob(randomChunks(200, 20_000), { perExtent: 50 }), init: {} },
]) {
  test(`eight nodes that start the same cold image at once fetch it once: ${title}`, { timeout: 120_000 }, async () => {
    const { members, devices, origin, stack } = await crowd(blob, init);
    await using _ = stack;
    await Promise.all(devices.map((device) => readThrough(device, 131_072)));
    const ratio = origin.bytes / blob.compressed.length;
    // On a busy machine the hedges that are free at first are used up: much of the smallest image.
    const most = 1.1 + HEDGE_LIMITS.outsideFirstBytes / blob.compressed.length;
    for (const device of devices) assert.deepEqual(await wrongRows(device), []);
    assert.ok(
      ratio <= most,
      `the registry sent ${ratio} times the image: ${JSON.stringify(members.map(({ plane }) => plane.stats().claims))}`,
    );
  });
}

test('a chunk that the registry takes ten seconds for is fetched once', { timeout: 120_000 }, async () => {
  const blob = testBlob(randomChunks(1, 1024 * 1024));
  const { devices, origin, stack } = await crowd(blob, {}, 100);
  await using _ = stack;
  await Promise.all(devices.map((device) => readThrough(device, 131_072)));
  assert.equal(origin.bytes, blob.compressed.length);
});

test('nodes that start after the first take nothing from the registry', { timeout: 120_000 }, async () => {
  const blob = testBlob(randomChunks(60, 60_000));
  const { members, devices, origin, stack } = await crowd(blob);
  await using _ = stack;
  for (const device of devices) await readThrough(device, 131_072);
  assert.ok(origin.bytes <= 1.01 * blob.compressed.length, `${origin.bytes} of ${blob.compressed.length}`);
  for (const { counters } of members.slice(1)) assert.equal(counters.neighbour.chunks, 60);
});
