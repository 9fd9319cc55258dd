import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../src/clock.ts';
import { BlockMap } from '../../src/core/block-map.ts';
import { createPersistence, type Persistence } from '../../src/store/persistence.ts';
import { RecordingLogger } from './store-fixture.ts';

/** A clock on which somebody sleeps until the test says that the time has passed. */
class SleepingClock implements Clock {
  readonly asked: number[] = [];
  #wake: (() => void) | undefined;
  nowMs = (): number => 0;
  wallTimeMs = (): number => 0;
  sleep(ms: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    this.asked.push(ms);
    return new Promise((resolve, reject) => {
      this.#wake = resolve;
      signal?.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
  }

  async pass(): Promise<void> {
    this.#wake?.();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** A disk whose data or map can be refused. */
class Disk {
  readonly clock = new SleepingClock();
  readonly log = new RecordingLogger();
  readonly persistence: Persistence;
  refuses: 'data' | 'map' | undefined;
  attempts = 0;

  constructor(init: { flushAfterBytes?: number } = {}) {
    const { clock, log } = this;
    const sync = async (fd: number): Promise<void> => {
      await new Promise((resolve) => process.nextTick(resolve));
      if (fd === DATA) this.attempts += 1;
      if (this.refuses === (fd === DATA ? 'data' : 'map')) throw Object.assign(new Error('EIO'), { errno: -5 });
    };
    const mapFile = { write: async () => {} };
    const lost = (rows: readonly number[]): void => {
      if (rows.length > 0) this.persistence.cleared();
    };
    this.persistence = createPersistence(
      { clock, log, presence: new BlockMap(8), mapFile, limit: (work) => work(), durable: async () => {}, lost },
      { dataFd: DATA, mapFd: MAP, name: 'layer', sync, ...init },
    );
  }
}

const DATA = 1;
const MAP = 2;

for (const refuses of ['data', 'map'] as const) {
  test(`a disk that refuses the ${refuses} is tried again less and less often, then as before`, async () => {
    const disk = new Disk();
    disk.refuses = refuses;
    disk.persistence.written(0, 4096);
    for (let round = 0; round < 9; round += 1) await disk.clock.pass();
    assert.deepEqual(
      disk.clock.asked.slice(0, 9),
      [1, 1, 2, 4, 8, 16, 32, 60, 60].map((seconds) => seconds * 1_000),
    );
    assert.equal(disk.log.lines.length, 9, 'one line per attempt');
    assert.equal(disk.persistence.clean, false);
    disk.refuses = undefined;
    await disk.clock.pass();
    assert.equal(disk.persistence.clean, true);
    disk.persistence.written(1, 4096);
    assert.equal(disk.clock.asked.at(-1), 1_000);
    await disk.persistence.close();
  });
}

test('many bytes do not hurry a disk that refuses, and many who wait cost one more attempt', async () => {
  const disk = new Disk({ flushAfterBytes: 8192 });
  disk.refuses = 'map';
  disk.persistence.written(0, 4096);
  const waiting = Array.from({ length: 50 }, () => disk.persistence.flush());
  assert.deepEqual(new Set(await Promise.all(waiting)), new Set([false]));
  assert.equal(disk.attempts, 2);
  for (let row = 1; row < 8; row += 1) disk.persistence.written(row, 4096);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(disk.attempts, 2);
  disk.refuses = undefined;
  assert.equal(await disk.persistence.flush(), true);
  for (let row = 1; row < 8; row += 1) disk.persistence.written(row, 4096);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(disk.attempts > 3, 'at once again');
  await disk.persistence.close();
});
