import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs, { copyFileSync, mkdirSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestHex } from '../../src/core/digest.ts';
import { hasCode } from '../../src/errors.ts';
import { fdatasync } from '../../src/store/file-io.ts';
import { randomChunks, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, RecordingLogger, stateRoot, wrongRows } from './store-fixture.ts';

const signal = new AbortController().signal;
const blob = testBlob([...randomChunks(24, 6_000), ...randomChunks(4, 40_000)], { gapBlocks: 1 });

/**
 * A disk that keeps only what was synced: at each fdatasync the synced file's content is what survives; of later
 * writes an arbitrary part of the pages does, torn at any page.
 */
class CrashDisk {
  readonly durable = new Map<string, Uint8Array>();
  readonly points: Map<string, Uint8Array>[] = [];
  /** What the files held (in the page cache) at each point. */
  readonly cached: Map<string, Uint8Array>[] = [];

  readonly sync = async (fd: number): Promise<void> => {
    this.note();
    await fdatasync(fd);
    const path = fs.readlinkSync(`/proc/self/fd/${fd}`);
    this.durable.set(path, fs.readFileSync(path));
    this.note();
  };

  note(): void {
    this.points.push(new Map(this.durable));
    this.cached.push(new Map([...this.durable.keys()].map((path) => [path, fs.readFileSync(path)])));
  }
}

test('whatever part of the unsynced pages survives a power cut, no bit is set without its bytes (F7)', async () => {
  await using root = await stateRoot();
  const disk = new CrashDisk();
  const dir = join(root.path, 'blobs', digestHex(blob.digest));
  {
    await using store = await openStore(root.path, {
      sync: disk.sync,
      flushAfterMs: 5,
      flushAfterBytes: 30_000,
      readahead: false,
    });
    store.connect(await CountingSource.of(blob));
    const device = await store.create(blob.digest, contentOf(blob));
    for (const file of ['data', 'map']) disk.durable.set(join(dir, file), fs.readFileSync(join(dir, file)));
    for (let row = 0; row < blob.table.count; row += 1) {
      const { deviceOffset } = blob.table.row((row * 11) % blob.table.count);
      await device.fill(deviceOffset, 1, { signal });
      disk.note();
      if (row % 5 === 4) await device.flush();
    }
  }
  assert.ok(disk.points.length > 50, `${disk.points.length} crash points`);
  let restored = 0;
  await fc.assert(
    fc.asyncProperty(fc.nat(disk.points.length - 1), fc.infiniteStream(fc.boolean()), async (point, keep) => {
      await using copy = await stateRoot();
      const target = join(copy.path, 'blobs', digestHex(blob.digest));
      mkdirSync(target, { recursive: true, mode: 0o700 });
      for (const file of ['table', 'tree', 'info']) copyFileSync(join(dir, file), join(target, file));
      for (const file of ['data', 'map']) {
        const path = join(dir, file);
        const bytes = Uint8Array.from(disk.points[point]?.get(path) as Uint8Array);
        const cached = disk.cached[point]?.get(path) as Uint8Array;
        for (let at = 0; at < bytes.length; at += 4096) {
          if (keep.next().value) bytes.set(cached.subarray(at, at + 4096), at);
        }
        await writeFile(join(target, file), bytes);
      }
      fs.chmodSync(join(copy.path, 'blobs'), 0o700);
      await using store = await openStore(copy.path, { verifyOnOpen: 'none' });
      const device = await store.open(blob.digest);
      assert.ok(device !== undefined);
      assert.deepEqual(await wrongRows(device), []);
      restored += device.stats().presentBytes;
    }),
    { numRuns: 300 },
  );
  assert.ok(restored > 0, 'some chunks survive, or this proves nothing');
});

test('bits that ran ahead of their data would be seen by the check above', async () => {
  await using root = await stateRoot();
  const dir = join(root.path, 'blobs', digestHex(blob.digest));
  {
    await using store = await openStore(root.path);
    store.connect(await CountingSource.of(blob));
    await (await store.create(blob.digest, contentOf(blob))).fill(0, 1, { signal });
  }
  const data = await readFile(join(dir, 'data'));
  await writeFile(join(dir, 'data'), data.fill(0));
  {
    await using store = await openStore(root.path, { verifyOnOpen: 'none' });
    const device = await store.open(blob.digest);
    assert.deepEqual(device && (await wrongRows(device)), [0]);
  }
  await using store = await openStore(root.path, { verifyOnOpen: 'full' });
  const device = await store.open(blob.digest);
  assert.deepEqual(device && (await wrongRows(device)), []);
});

test('a state directory cut at any point opens, and serves only what verifies (F7)', async () => {
  await using root = await stateRoot();
  {
    await using store = await openStore(root.path);
    store.connect(await CountingSource.of(blob));
    const edges = Uint32Array.of(0, blob.table.deviceSize / 4096);
    const device = await store.create(blob.digest, { ...contentOf(blob), edges });
    await device.fill(0, device.size / 2, { signal });
    await device.flush();
    await device.fill(0, device.size, { signal });
  }
  const files = ['data', 'map', 'table', 'tree', 'info', 'edges'];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...files), fc.double({ min: 0, max: 1, noNaN: true }), async (file, part) => {
      const copy = await mkdtemp(join(tmpdir(), 'shoal-cut-'));
      try {
        await cp(root.path, copy, { recursive: true });
        const path = join(copy, 'blobs', digestHex(blob.digest), file);
        await truncate(path, Math.floor((await readFile(path)).length * part));
        await using store = await openStore(copy);
        store.connect(await CountingSource.of(blob));
        const device = (await store.open(blob.digest)) ?? (await store.create(blob.digest, contentOf(blob)));
        assert.deepEqual(await wrongRows(device), []);
        await device.fill(0, device.size, { signal });
        assert.deepEqual(await wrongRows(device), []);
      } finally {
        await rm(copy, { recursive: true, force: true });
      }
    }),
    { numRuns: 200 },
  );
});

test('when the disk refuses a sync, its chunks are forgotten, and only those', async () => {
  await using root = await stateRoot();
  let failing = false;
  const sync = async (fd: number): Promise<void> => {
    if (failing && fs.readlinkSync(`/proc/self/fd/${fd}`).endsWith('/data')) {
      failing = false;
      throw Object.assign(new Error('EIO: i/o error, fdatasync'), { errno: -5, code: 'EIO' });
    }
    await fdatasync(fd);
  };
  const log = new RecordingLogger();
  await using store = await openStore(root.path, { sync, flushAfterMs: 100_000, readahead: false }, log);
  const source = await CountingSource.of(blob);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(blob.table.row(0).deviceOffset, 1, { signal });
  assert.equal(await device.flush(), true);
  await device.fill(blob.table.row(1).deviceOffset, 1, { signal });
  failing = true;
  assert.equal(await device.flush(), false);
  assert.deepEqual([device.hasChunk(0), device.hasChunk(1)], [true, false]);
  assert.ok(log.lines.some(({ level }) => level === 'error'));
  await device.fill(0, device.size, { signal });
  assert.equal(await device.flush(), true);
  assert.equal(device.complete, true);
  assert.deepEqual(await wrongRows(device), []);
});

const asRoot = process.geteuid?.() === 0;

test('a full disk fails the read with its errno, sets no bit, and recovers with the space (F8)', {
  skip: !asRoot,
}, async () => {
  await using root = await stateRoot();
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=320k,mode=0700', 'tmpfs', root.path]);
  try {
    await using store = await openStore(root.path, { readahead: false });
    store.connect(await CountingSource.of(blob));
    const device = await store.create(blob.digest, contentOf(blob));
    const ballast = join(root.path, 'ballast');
    assert.throws(() => fs.writeFileSync(ballast, Buffer.alloc(400_000)), { code: 'ENOSPC' });
    for (let row = 0; row < blob.table.count; row += 1) {
      await assert.rejects(
        device.fill(blob.table.row(row).deviceOffset, 1, { signal }),
        (error) => hasCode(error, 'STORE_IO') && error.context.errno === ENOSPC,
      );
      assert.equal(device.hasChunk(row), false);
    }
    assert.deepEqual(await wrongRows(device), []);
    await rm(ballast);
    for (let row = 0; row < 8; row += 1) await device.fill(blob.table.row(row).deviceOffset, 1, { signal });
    assert.equal(await device.flush(), true);
    assert.deepEqual(await wrongRows(device), []);
    await store.close();
    await using again = await openStore(root.path, { verifyOnOpen: 'none' });
    const reopened = await again.open(blob.digest);
    assert.equal(reopened?.hasChunk(7), true);
    assert.deepEqual(reopened && (await wrongRows(reopened)), []);
  } finally {
    execFileSync('umount', [root.path]);
  }
});

const ENOSPC = 28;
