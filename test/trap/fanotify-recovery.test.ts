import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.ts';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { hasCode } from '../../src/errors.ts';
import { FAN } from '../../src/kernel/fanotify.ts';
import { closeRaw } from '../../src/kernel/libc.ts';
import { isAlive, openProcess, type ProcessIdentity, processIdentity, takeDescriptor } from '../../src/kernel/pidfd.ts';
import { silentLogger } from '../../src/log.ts';
import { createFanotifyTrap, type FanotifyTrap, type FanotifyTrapInit } from '../../src/trap/fanotify/fanotify-trap.ts';
import { type Journal, openJournal } from '../../src/trap/fanotify/journal.ts';
import { createFaultLoop } from '../../src/trap/fault-loop.ts';
import { endLeftKeeper } from '../../src/trap/keeper/keeper.ts';
import { readKeeperRecord, writeKeeperRecord } from '../../src/trap/keeper/keeper-record.ts';
import { labDirectory, openDevice, run, unmount } from './erofs-lab.ts';
import { compare, type LazyImage, type MakeTrap, TrapLab, until } from './trap-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const JOURNAL_FD = 4;
/** An event with its range. */
const EVENT_BYTES = 48;

const make: MakeTrap = (_, { runDir }) => newTrap({ runDir });

function newTrap(init: Pick<FanotifyTrapInit, 'runDir' | 'maxInFlight'>): Promise<FanotifyTrap> {
  const onFatal = (error: Error): never => {
    throw error;
  };
  return createFanotifyTrap({ log: silentLogger, clock: systemClock }, { onFatal, ...init });
}

/** Readers that wait in a trap that was left as a crash would leave it. */
async function crashed(readers: number) {
  const lab = await TrapLab.create(make);
  const lazy = await lab.serve(Array.from({ length: readers }, () => 200_000));
  lazy.source.mode = 'silent';
  const waiting = Array.from({ length: readers }, (_, index) => compare(lazy, `f${index}`));
  await until(() => lab.trap.stats().cold >= readers);
  await lab.trap.abandon();
  const runDir = join(lab.directory.path, 'run');
  return { lab, lazy, waiting: Promise.all(waiting), runDir };
}

/** What a restarted daemon does: create, attach, start, fill. */
async function restart(
  runDir: string,
  lazy: LazyImage,
  { known = true, knowsAll = false, trap = undefined as FanotifyTrap | undefined } = {},
) {
  const restarted = trap ?? (await newTrap({ runDir }));
  const { id, name, path, size } = lazy.device;
  const device = openDevice({ id, name, path, size });
  if (known) await restarted.attach(device);
  await restarted.start({ knowsAll });
  const fill = async (offset: number, length: number): Promise<void> => {
    writeSync(device.fd, lazy.image.data.subarray(offset, offset + length), 0, undefined, offset);
    device.presence.setRange(offset / BLOCK_BYTES, (offset + length) / BLOCK_BYTES);
  };
  createFaultLoop({ trap: restarted, log: silentLogger, clock: systemClock, device: () => ({ name, fill }) });
  return {
    trap: restarted,
    async [Symbol.asyncDispose]() {
      await unmount(lazy.mountpoint, { lazy: true });
      await restarted.close();
      device.close();
    },
  };
}

function keeperOf(runDir: string): ProcessIdentity {
  const record = readKeeperRecord(runDir);
  assert.ok(record);
  return record.keeper;
}

function withJournal<T>(runDir: string, use: (journal: Journal) => T): T {
  const pidfd = openProcess(keeperOf(runDir));
  assert.ok(pidfd !== undefined);
  const fd = takeDescriptor(pidfd, JOURNAL_FD);
  const journal = openJournal(fd);
  assert.ok(journal);
  try {
    return use(journal);
  } finally {
    journal.unmap();
    closeRaw(fd);
    closeRaw(pidfd);
  }
}

/** The journal as it is when the daemon is killed right after read(2): the events are in the batch, no slot is taken. */
function putBack(journal: Journal): void {
  const view = new DataView(journal.batch.buffer, journal.batch.byteOffset, journal.batch.byteLength);
  let at = 0;
  for (const { eventFd, offset, length } of journal.entries()) {
    view.setUint32(at, EVENT_BYTES, true);
    view.setUint8(at + 4, FAN.METADATA_VERSION);
    view.setUint16(at + 6, FAN.METADATA_BYTES, true);
    view.setInt32(at + 16, eventFd, true);
    const range = at + FAN.METADATA_BYTES;
    view.setUint8(range, FAN.EVENT_INFO_TYPE_RANGE);
    view.setUint16(range + 2, EVENT_BYTES - FAN.METADATA_BYTES, true);
    view.setBigUint64(range + 8, BigInt(offset), true);
    view.setBigUint64(range + 16, BigInt(length), true);
    at += EVENT_BYTES;
    journal.clear(eventFd);
  }
}

describe('fanotify trap after a crash', { skip, timeout: 120_000 }, () => {
  it('lets readers wait for the next daemon, which gives them their bytes', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(6);
    await using _lab = lab;
    await using next = await restart(runDir, lazy);
    assert.equal(next.trap.recovered, true);
    assert.equal(next.trap.lost, false);
    assert.deepEqual(await waiting, [0, 0, 0, 0, 0, 0]);
    assert.equal(next.trap.stats().denied, 0);
  });

  it('denies events that are not in the journal, and their readers ask again', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(4);
    await using _lab = lab;
    withJournal(runDir, (journal) => {
      assert.equal(journal.entries().length, 4);
      for (const { eventFd } of journal.entries()) journal.clear(eventFd);
    });
    await using next = await restart(runDir, lazy);
    assert.deepEqual(await waiting, [0, 0, 0, 0]);
    assert.ok(next.trap.stats().cold > 0);
  });

  for (const knowsAll of [true, false]) {
    it(`${knowsAll ? 'fills' : 'denies'} events that were read and not looked at where ${knowsAll ? 'every' : 'not every'} file is known`, async () => {
      const { lab, lazy, waiting, runDir } = await crashed(4);
      await using _lab = lab;
      withJournal(runDir, putBack);
      await using next = await restart(runDir, lazy, { knowsAll });
      assert.deepEqual(await waiting, [0, 0, 0, 0]);
      assert.deepEqual([next.trap.stats().denied, next.trap.stats().cold >= 4], [knowsAll ? 0 : 4, true]);
    });
  }

  it('leaves events that were not looked at to the daemon after the next', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(2);
    await using _lab = lab;
    withJournal(runDir, putBack);
    const between = await newTrap({ runDir });
    await between.attach(lazy.device);
    await between.start({ knowsAll: true });
    await between.abandon();
    await using next = await restart(runDir, lazy, { knowsAll: true });
    assert.deepEqual(await waiting, [0, 0]);
    assert.equal(next.trap.stats().denied, 0);
  });

  it('lets no new event take the number of an old one that still waits', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(3);
    await using _lab = lab;
    const numbers = withJournal(runDir, (journal) => journal.entries().map(({ eventFd }) => eventFd));
    // in use when the trap starts, so that it cannot occupy them, and free when new events come
    const blockers: number[] = [];
    while (Math.max(-1, ...blockers) < Math.max(...numbers)) blockers.push(openSync('/dev/null', 'r'));
    const trap = await newTrap({ runDir });
    for (const fd of blockers) closeSync(fd);
    const late = run('cmp', ['-s', lazy.file('f0'), lazy.file('f1')]);
    await using next = await restart(runDir, lazy, { trap });
    assert.deepEqual(await waiting, [0, 0, 0]);
    assert.notEqual((await late).code, null);
    assert.equal(await compare(lazy, 'f2'), 0);
    assert.ok(next.trap.recovered);
  });

  it('denies readers of a device the next daemon does not know', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(2);
    await using _lab = lab;
    await using next = await restart(runDir, lazy, { known: false });
    assert.deepEqual(await waiting, [2, 2]);
    assert.ok(next.trap.stats().denied > 0);
  });

  it('lets the process exit without a close, and leaves the group to the next one', async () => {
    const directory = labDirectory();
    const script = fileURLToPath(new URL('./exit-without-close.ts', import.meta.url));
    const { code } = await run(process.execPath, [script, directory.path], 10_000);
    assert.equal(code, 3);
    const trap = await newTrap({ runDir: directory.path });
    assert.deepEqual([trap.recovered, trap.lost], [true, false]);
    await trap.abandon();
    const keeper = keeperOf(directory.path);
    assert.equal(endLeftKeeper(directory.path), true);
    await until(() => !isAlive(keeper));
    assert.equal(endLeftKeeper(directory.path), false);
    directory.remove();
  });

  it('refuses to take the group of a daemon that still runs', async () => {
    await using lab = await TrapLab.create(make);
    const runDir = join(lab.directory.path, 'run');
    const other = spawn('sleep', ['60']);
    await once(other, 'spawn');
    const daemon = processIdentity(other.pid as number) as ProcessIdentity;
    writeKeeperRecord(runDir, { keeper: keeperOf(runDir), daemon });
    await assert.rejects(newTrap({ runDir }), (error) => hasCode(error, 'FAILED_PRECONDITION'));
    other.kill();
  });
});

describe('keeper', { skip, timeout: 60_000 }, () => {
  it('is replaced when it dies while the daemon lives', async () => {
    await using lab = await TrapLab.create(make);
    const lazy = await lab.serve([100_000]);
    const runDir = join(lab.directory.path, 'run');
    const first = keeperOf(runDir);
    process.kill(first.pid, 'SIGKILL');
    await until(() => keeperOf(runDir).pid !== first.pid);
    assert.ok(isAlive(keeperOf(runDir)));
    assert.equal(await compare(lazy, 'f0'), 0);
  });

  it('ends with an orderly close and leaves no record', async () => {
    const directory = labDirectory();
    const trap = await newTrap({ runDir: directory.path });
    const keeper = keeperOf(directory.path);
    await trap.close();
    await until(() => !isAlive(keeper));
    assert.equal(readKeeperRecord(directory.path), undefined);
    directory.remove();
  });

  it('is reported lost when it died with the daemon', async () => {
    const { lab, lazy, waiting, runDir } = await crashed(1);
    await using _lab = lab;
    const keeper = keeperOf(runDir);
    // unmounted first: with the group gone nothing holds readers back
    await unmount(lazy.mountpoint, { lazy: true });
    process.kill(keeper.pid, 'SIGKILL');
    await waiting;
    await until(() => !isAlive(keeper));
    const trap = await newTrap({ runDir });
    assert.deepEqual([trap.lost, trap.recovered], [true, false]);
    await trap.close();
  });
});

describe('fanotify trap', { skip, timeout: 60_000 }, () => {
  it('lets nobody truncate a device', async () => {
    await using lab = await TrapLab.create(make);
    const lazy = await lab.serve([100_000]);
    const { code, err } = await run('truncate', ['-s', '4096', lazy.device.path]);
    assert.equal(code, 1);
    assert.match(err, /not permitted/);
    assert.equal(await compare(lazy, 'f0'), 0);
  });

  it('serves warm reads while the main thread is blocked', async () => {
    await using lab = await TrapLab.create(make);
    const lazy = await lab.serve([2_000_000]);
    assert.equal(await compare(lazy, 'f0'), 0);
    const { mountpoint } = lazy;
    const script = `dd if=${mountpoint}/f0 iflag=nocache count=0 2>&-; sleep 0.2; a=$(date +%s%N); cat ${mountpoint}/f0 >&-; cat ${mountpoint}/f0 | wc -c; echo $(( $(date +%s%N) - a ))`;
    const reading = run('sh', ['-c', script]);
    await delay(50);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1500);
    const [bytes, nanoseconds] = (await reading).out.toString().trim().split('\n').map(Number) as [number, number];
    assert.equal(bytes, 2_000_000);
    assert.ok(nanoseconds < 1e9, `warm reads took ${nanoseconds / 1e6} ms`);
  });

  it('lets more readers wait than it may hold events', async () => {
    await using lab = await TrapLab.create((_, { runDir }) => newTrap({ runDir, maxInFlight: 3 }));
    const lazy = await lab.serve(Array.from({ length: 24 }, () => 50_000));
    lazy.source.delayMs = 10;
    const readers = Array.from({ length: 24 }, (_, index) => compare(lazy, `f${index}`));
    assert.deepEqual(new Set(await Promise.all(readers)), new Set([0]));
  });
});
