import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { ShoalError } from '../../src/errors.ts';
import { silentLogger } from '../../src/log.ts';
import { createFaultLoop, type Fillable } from '../../src/trap/fault-loop.ts';
import { createFaultQueue } from '../../src/trap/fault-queue.ts';
import type { Fault, FaultAnswer } from '../../src/trap/trap.ts';

/** A trap that takes faults from the test and keeps the answers. */
class FakeTrap {
  readonly faults = createFaultQueue();
  readonly answers: [Fault, FaultAnswer][] = [];
  answer(fault: Fault, answer: FaultAnswer): void {
    this.answers.push([fault, answer]);
  }
  raise(device: number, offset = 0): Fault {
    const fault = { device, offset, length: 4096 };
    this.faults.push(fault);
    return fault;
  }
}

const blob = (fill: Fillable['fill']): Fillable => ({ name: 'a blob', fill });
const parts = (trap: FakeTrap, device: (id: number) => Fillable | undefined) => ({
  trap,
  device,
  log: silentLogger,
  clock: systemClock,
});

describe('createFaultLoop', () => {
  it('answers filled once the device has filled the range', async () => {
    const trap = new FakeTrap();
    const asked: number[][] = [];
    const loop = createFaultLoop(parts(trap, () => blob(async (offset, length) => void asked.push([offset, length]))));
    const fault = trap.raise(1, 8192);
    await delay(5);
    trap.faults.end();
    await loop.done;
    assert.deepEqual(asked, [[8192, 4096]]);
    assert.deepEqual(trap.answers, [[fault, 'filled']]);
    assert.equal(loop.stats().filled, 1);
    assert.equal(
      loop.stats().latency.reduce((sum, count) => sum + count),
      1,
    );
  });

  it('has less patience with what the kernel asks again after a read timed out, and only for a while', async () => {
    const trap = new FakeTrap();
    let now = 0;
    const clock = { ...systemClock, nowMs: () => now };
    const signals: AbortSignal[] = [];
    const device = blob((_offset, _length, { signal }) => {
      signals.push(signal);
      return new Promise(() => {});
    });
    const loop = createFaultLoop({ ...parts(trap, () => device), clock }, { deadlineMs: 700 });
    const answered = async (): Promise<number> => {
      const before = trap.answers.length;
      const startedAt = performance.now();
      trap.raise(1);
      while (trap.answers.length === before) await delay(5);
      return performance.now() - startedAt;
    };
    const [first, second] = [await answered(), await answered()];
    now += 2_000;
    const later = await answered();
    assert.ok(first > 690 && later > 690, `${first} ${later}`);
    assert.ok(second > 490 && second < 690, `${second}`);
    assert.deepEqual(
      signals.map(({ aborted }) => aborted),
      [true, true, true],
    );
    trap.faults.end();
    await loop.done;
  });

  it('maps a full disk to ENOSPC and every other failure to EIO', async () => {
    const trap = new FakeTrap();
    const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
    const failures: unknown[] = [
      full,
      new ShoalError('STORE_IO', 'write failed', { cause: full }),
      new Error('boom'),
      'a string',
    ];
    const loop = createFaultLoop(
      parts(trap, (id) => (id === 9 ? undefined : blob(() => Promise.reject(failures[id])))),
    );
    for (const id of [0, 1, 2, 3, 9]) trap.raise(id);
    await delay(5);
    trap.faults.end();
    await loop.done;
    const byDevice = new Map(trap.answers.map(([fault, answer]) => [fault.device, answer]));
    assert.deepEqual([...byDevice.entries()].sort(), [
      [0, 'ENOSPC'],
      [1, 'ENOSPC'],
      [2, 'EIO'],
      [3, 'EIO'],
      [9, 'EIO'],
    ]);
    assert.equal(loop.stats().failed, 5);
  });

  it('answers at the deadline even when a fill ignores its signal', async () => {
    const trap = new FakeTrap();
    const loop = createFaultLoop(
      parts(trap, () => blob(() => new Promise(() => {}))),
      { deadlineMs: 30 },
    );
    trap.raise(1);
    await delay(60);
    assert.deepEqual(
      trap.answers.map(([, answer]) => answer),
      ['EIO'],
    );
    trap.faults.end();
    await loop.done;
  });

  it('fills no more at once than it may, and answers those that wait too long in line', async () => {
    const trap = new FakeTrap();
    let [now, most] = [0, 0];
    const fill = async (): Promise<void> => {
      now += 1;
      most = Math.max(most, now);
      await delay(10);
      now -= 1;
    };
    const loop = createFaultLoop(
      parts(trap, () => blob(fill)),
      { maxInFlight: 3 },
    );
    for (let i = 0; i < 20; i += 1) trap.raise(1, i * 4096);
    await delay(1);
    trap.faults.end();
    await loop.done;
    assert.equal(most, 3);
    assert.equal(trap.answers.filter(([, answer]) => answer === 'filled').length, 20);
    assert.equal(loop.stats().inFlight, 0);
  });

  it('stops with an error for everyone who waits', async () => {
    const trap = new FakeTrap();
    const loop = createFaultLoop(parts(trap, () => blob(() => new Promise(() => {}))));
    trap.raise(1);
    await delay(5);
    loop.stop();
    trap.raise(2);
    await delay(5);
    trap.faults.end();
    await loop.done;
    assert.deepEqual(
      trap.answers.map(([, answer]) => answer),
      ['EIO', 'EIO'],
    );
  });

  it('logs one line per failing blob, not one per fault', async () => {
    const trap = new FakeTrap();
    const lines: string[] = [];
    const log = { ...silentLogger, error: (message: string) => void lines.push(message) };
    const loop = createFaultLoop({ ...parts(trap, () => blob(() => Promise.reject(new Error('no')))), log });
    for (let i = 0; i < 100; i += 1) trap.raise(1, i * 4096);
    await delay(10);
    trap.faults.end();
    await loop.done;
    assert.equal(trap.answers.length, 100);
    assert.equal(lines.length, 1);
  });

  it('says nothing of reads that it leaves to the next daemon, and stops filling them', async () => {
    const trap = new FakeTrap();
    const lines: string[] = [];
    const log = { ...silentLogger, error: (message: string) => void lines.push(message) };
    const loop = createFaultLoop({ ...parts(trap, () => blob(() => new Promise(() => {}))), log });
    trap.raise(1, 0);
    await delay(10);
    loop.leave();
    trap.faults.end();
    await loop.done;
    assert.deepEqual([loop.stats().failed, lines], [1, []]);
  });
});
