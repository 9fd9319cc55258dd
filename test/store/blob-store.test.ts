import assert from 'node:assert/strict';
import { chmod, mkdir, readdir, readFile, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { digestHex, parseDigest } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import { count, sourceCounters } from '../../src/store/count.ts';
import { dedup } from '../../src/store/dedup.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { prefetchAll } from '../../src/store/readahead.ts';
import { route } from '../../src/store/route.ts';
import { chunkStoreSuite } from '../suites/chunk-store-suite.ts';
import { MemoryIndexDb, randomChunks, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, RecordingLogger, stateRoot, wrongRows } from './store-fixture.ts';

const signal = new AbortController().signal;
const MIB = 1024 * 1024;

test('a blob is created whole and private, filled, and warm again after a restart', async () => {
  await using root = await stateRoot();
  const blob = testBlob([...randomChunks(5, 10_000), ...randomChunks(2, 300_000)], { gapBlocks: 1 });
  const source = await CountingSource.of(blob);
  {
    await using store = await openStore(root.path);
    store.connect(source);
    const device = await store.create(blob.digest, contentOf(blob));
    assert.equal(device.size, blob.table.deviceSize);
    assert.equal(device.name, digestHex(blob.digest));
    assert.ok(device.id > 0);
    assert.equal((await stat(device.path)).blocks, 0, 'sparse');
    await device.fill(0, 4096, { signal });
    assert.equal(source.gets.length, 1);
    assert.ok(device.presence.hasRange(3, 4), 'the gap counts as present');
    await device.fill(0, device.size, { signal });
    assert.deepEqual(await wrongRows(device), []);
    assert.equal(device.stats().bytesBySource.memory, blob.table.dataBytes);
    await new Promise<void>((resolve) => device.onComplete(resolve));
    assert.equal(device.complete, true);
  }
  for (const path of ['', 'data', 'map', 'table', 'tree', 'info']) {
    const { mode } = await stat(join(root.path, 'blobs', digestHex(blob.digest), path));
    assert.equal(mode & 0o077, 0, path);
  }
  await using store = await openStore(root.path, { verifyOnOpen: 'full' });
  assert.deepEqual(await store.list(), [blob.digest]);
  assert.equal(store.opened(blob.digest), undefined);
  const [device, same] = await Promise.all([store.open(blob.digest), store.open(blob.digest)]);
  assert.equal(device, same);
  assert.equal(device?.complete, true);
  await device?.fill(0, device.size, { signal });
  assert.deepEqual(Buffer.from(await store.readTree(blob.digest)).toString(), 'tree');
});

test('blobs created and opened side by side have numbers of their own', async () => {
  await using root = await stateRoot();
  const blobs = Array.from({ length: 8 }, () => testBlob(randomChunks(1, 5000)));
  for (const round of ['created', 'opened']) {
    await using store = await openStore(root.path);
    const devices = await Promise.all(
      blobs.map((blob) => (round === 'created' ? store.create(blob.digest, contentOf(blob)) : store.open(blob.digest))),
    );
    assert.equal(new Set(devices.map((device) => device?.id)).size, blobs.length, round);
  }
});

test('creating what exists keeps its data and learns the new source', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(2, 5000));
  const extra = { registry: 'other.example', repository: 'x' };
  {
    await using store = await openStore(root.path);
    store.connect(await CountingSource.of(blob));
    const device = await store.create(blob.digest, contentOf(blob));
    await device.fill(0, 4096, { signal });
    const content = contentOf(blob);
    const info = { ...content.info, sources: [...content.info.sources, extra] };
    assert.equal(await store.create(blob.digest, { ...content, info }), device);
    await store.addSource(blob.digest, extra);
    assert.equal(device.info.sources.length, 2);
    assert.equal(device.hasChunk(0), true);
  }
  await using store = await openStore(root.path);
  assert.deepEqual((await store.open(blob.digest))?.info.sources[1], extra);
  await assert.rejects(store.addSource(testBlob(randomChunks(1, 9)).digest, extra), { code: 'NOT_FOUND' });
});

test('removing a blob leaves no file and no index record', async () => {
  await using root = await stateRoot();
  const db = new MemoryIndexDb();
  const blob = testBlob(randomChunks(20, 5000));
  await using store = await openStore(root.path, { db });
  store.connect(await CountingSource.of(blob));
  for (let round = 0; round < 20; round += 1) {
    const device = await store.create(blob.digest, contentOf(blob));
    await device.fill(0, device.size, { signal });
    await device.flush();
    assert.equal(db.records.size, 20);
    await store.remove(blob.digest);
    assert.equal(db.records.size, 0);
    assert.deepEqual(await readdir(join(root.path, 'blobs')), []);
    assert.equal(await store.open(blob.digest), undefined);
    await assert.rejects(
      device.fill(0, 1, { signal: AbortSignal.abort(new Error('x')) }).then(() => device.readChunk(0, { signal })),
    );
  }
  await assert.rejects(store.readTree(blob.digest), { code: 'NOT_FOUND' });
});

test('a thousand readers of a cold chunk cost one upstream read (L2)', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(1, MIB));
  const source = await CountingSource.of(blob);
  source.before = () => sleep(20);
  await using store = await openStore(root.path);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await Promise.all(Array.from({ length: 1000 }, (_, index) => device.fill((index % 256) * 4096, 4096, { signal })));
  assert.equal(source.gets.length, 1);
  assert.deepEqual(await wrongRows(device), []);
});

test('a reader that joined a read begun before it came has a try of its own when that fails', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(1, 5000));
  const source = await CountingSource.of(blob);
  let isAway = true;
  source.before = async () => {
    await sleep(20);
    if (isAway) throw new ShoalError('SOURCE_FAILED', 'away');
  };
  await using store = await openStore(root.path, { readahead: false });
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  const before = device.fill(0, 1, { signal, urgency: 'prefetch' });
  const joined = device.fill(0, 1, { signal });
  await assert.rejects(before, { code: 'SOURCE_FAILED' });
  isAway = false;
  await joined;
  assert.equal(source.gets.length, 2);
  isAway = true;
  await store.remove(blob.digest);
  const again = await store.create(blob.digest, contentOf(blob));
  await assert.rejects(again.fill(0, 1, { signal }), { code: 'SOURCE_FAILED' });
  assert.equal(source.gets.length, 3, 'who began the read has had its try');
});

test('one reader giving up does not stop the others; the last one does', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(3, 5000));
  const source = await CountingSource.of(blob);
  const aborted: number[] = [];
  source.before = (ref, options) =>
    new Promise((resolve) => {
      options.signal.addEventListener('abort', () => {
        aborted.push(ref.index);
        resolve();
      });
      setTimeout(resolve, 50);
    });
  await using store = await openStore(root.path);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  const one = new AbortController();
  const gone = device.fill(0, device.size, { signal: one.signal });
  const stays = device.fill(0, 4096, { signal });
  await sleep(5);
  one.abort(new Error('gone'));
  await assert.rejects(gone, /gone/);
  await stays;
  assert.deepEqual(aborted, [1, 2]);
  assert.deepEqual(
    [0, 1, 2].map((row) => device.hasChunk(row)),
    [true, false, false],
  );
  assert.equal(device.stats().inFlight, 0);
  await device.fill(0, device.size, { signal });
  assert.deepEqual(await wrongRows(device), []);
});

test('a source error reaches the reader and the next read tries again', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(1, 5000));
  const source = await CountingSource.of(blob);
  source.before = async () => {
    throw new ShoalError('SOURCE_FAILED', 'down');
  };
  await using store = await openStore(root.path);
  const device = await store.create(blob.digest, contentOf(blob));
  await assert.rejects(device.fill(0, 1, { signal }), { code: 'FAILED_PRECONDITION' });
  store.connect(source);
  await assert.rejects(device.fill(0, 1, { signal }), { code: 'SOURCE_FAILED' });
  source.before = async () => {};
  await device.fill(0, 1, { signal });
});

test('a chunk another layer holds is copied, not fetched', async () => {
  await using root = await stateRoot();
  const shared = randomChunks(10, 20_000);
  const a = testBlob([...randomChunks(3, 999), ...shared]);
  const b = testBlob([...shared, ...randomChunks(2, 999)]);
  const source = await CountingSource.of(a, b);
  const db = new MemoryIndexDb();
  await using store = await openStore(root.path, { db });
  const local = count({ clock: systemClock, inner: createLocalStore({ blobs: store }) }, sourceCounters('local'));
  store.connect(dedup(route(local, source)));
  const first = await store.create(a.digest, contentOf(a));
  await first.fill(0, first.size, { signal });
  await first.flush();
  const before = source.gets.length;
  const second = await store.create(b.digest, contentOf(b));
  const calls = db.calls;
  await second.fill(0, second.size, { signal });
  assert.equal(source.gets.length - before, 2, 'only what is new');
  assert.equal(second.stats().bytesBySource.local, 200_000);
  assert.ok(db.calls - calls <= 2, 'lookups of one fill are one read of the database');
  assert.deepEqual(await wrongRows(second), []);
});

test('a corrupt copy is not handed on: it is fetched, and the corrupt one repaired', async () => {
  await using root = await stateRoot();
  const shared = randomChunks(1, 20_000);
  const a = testBlob([...shared, ...randomChunks(1, 99)]);
  const b = testBlob([...randomChunks(1, 99), ...shared]);
  const source = await CountingSource.of(a, b);
  await using store = await openStore(root.path);
  store.connect(dedup(route(createLocalStore({ blobs: store }), source)));
  const first = await store.create(a.digest, contentOf(a));
  await first.fill(0, 4096, { signal });
  await first.flush();
  await flip(first.path, 12_345);
  const second = await store.create(b.digest, contentOf(b));
  await second.fill(0, second.size, { signal });
  assert.deepEqual(await wrongRows(second), []);
  for (let wait = 0; !first.hasChunk(0) && wait < 200; wait += 1) await sleep(5);
  assert.equal(first.hasChunk(0), true);
  assert.deepEqual(await wrongRows(first), []);
  assert.equal(first.stats().corrupt, 1);
});

test('each flipped bit is found by a full check and fetched again (F9)', async () => {
  await using root = await stateRoot();
  const blob = testBlob([...randomChunks(30, 9000)]);
  const source = await CountingSource.of(blob);
  for (let round = 0; round < 100; round += 1) {
    await using store = await openStore(root.path, { verifyOnOpen: 'full' });
    store.connect(source);
    const device = await store.create(blob.digest, contentOf(blob));
    if (round > 0) assert.equal(device.stats().corrupt, 1, `round ${round}`);
    await device.fill(0, device.size, { signal });
    assert.deepEqual(await wrongRows(device), []);
    await device.flush();
    await flip(device.path, Math.floor(Math.random() * device.size), 1 << Math.floor(Math.random() * 8));
  }
  const log = new RecordingLogger();
  await using store = await openStore(root.path, { verifyOnOpen: 'none' }, log);
  const device = await store.open(blob.digest);
  assert.equal((await device?.verifyRange(0, blob.table.deviceSize, { signal }))?.dropped, 1);
});

test('a data file that was emptied is found by the default check', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(50, 4096));
  const source = await CountingSource.of(blob);
  {
    await using store = await openStore(root.path);
    store.connect(source);
    const device = await store.create(blob.digest, contentOf(blob));
    await device.fill(0, device.size, { signal });
  }
  const data = join(root.path, 'blobs', digestHex(blob.digest), 'data');
  await truncate(data, 0);
  await truncate(data, blob.table.deviceSize);
  await using store = await openStore(root.path);
  const device = await store.open(blob.digest);
  assert.equal(device?.presence.missing, 50);
});

test('state that is cut, zeroed, random or missing costs that state only (B14)', async () => {
  const damage: Record<string, (path: string) => Promise<void>> = {
    cut: async (path) => truncate(path, Math.floor((await stat(path)).size / 2)),
    empty: (path) => truncate(path, 0),
    zeroed: async (path) => writeFile(path, Buffer.alloc((await stat(path)).size)),
    random: async (path) => writeFile(path, randomChunks(1, (await stat(path)).size)[0] as Uint8Array),
    'one bit': async (path) => flip(path, Math.floor(((await stat(path)).size - 1) / 20)),
  };
  const blob = testBlob(randomChunks(40, 6000));
  for (const [how, harm] of Object.entries(damage)) {
    for (const file of ['map', 'table', 'tree', 'info', 'data']) {
      await using root = await stateRoot();
      const source = await CountingSource.of(blob);
      {
        await using store = await openStore(root.path);
        store.connect(source);
        const device = await store.create(blob.digest, contentOf(blob));
        await device.fill(0, device.size, { signal });
      }
      await harm(join(root.path, 'blobs', digestHex(blob.digest), file));
      const log = new RecordingLogger();
      await using store = await openStore(root.path, { verifyOnOpen: 'full' }, log);
      store.connect(source);
      const opened = await store.open(blob.digest);
      const where = `${how} ${file}`;
      if (file === 'table' || file === 'tree' || file === 'info') assert.equal(opened, undefined, where);
      if (opened !== undefined) assert.deepEqual(await wrongRows(opened), [], where);
      // Half a map is one whole slot, and one bit spoils one of two: the other still tells the truth.
      if (file !== 'map' || how === 'empty' || how === 'zeroed' || how === 'random')
        assert.ok(
          log.lines.some(({ fields }) => fields.code === 'STATE_CORRUPT'),
          where,
        );
      const device = await store.create(blob.digest, contentOf(blob));
      await device.fill(0, device.size, { signal });
      assert.deepEqual(await wrongRows(device), [], where);
      assert.equal(Buffer.from(await store.readTree(blob.digest)).toString(), 'tree', where);
    }
  }
});

test('a root that is open to others or a link is refused; leftovers of a crash are removed', async () => {
  await using root = await stateRoot();
  await chmod(root.path, 0o755);
  await assert.rejects(openStore(root.path), { code: 'CONFIG_INVALID' });
  await chmod(root.path, 0o700);
  await symlink('/tmp', join(root.path, 'blobs'));
  await assert.rejects(openStore(root.path), (error) => error instanceof ShoalError);
  await using other = await stateRoot();
  await mkdir(join(other.path, 'blobs', '.tmp-left'), { recursive: true, mode: 0o700 });
  await chmod(join(other.path, 'blobs'), 0o700);
  await writeFile(join(other.path, 'blobs', '.tmp-left', 'data'), 'x');
  await using _store = await openStore(other.path);
  assert.deepEqual(await readdir(join(other.path, 'blobs')), []);
});

test('sequential readers make the device read ahead, random ones do not', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(64, 256 * 1024));
  const source = await CountingSource.of(blob);
  source.before = () => sleep(2);
  await using store = await openStore(root.path);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(12 * MIB, 4096, { signal });
  await device.fill(4 * MIB, 4096, { signal });
  await sleep(20);
  assert.equal(source.gets.length, 2);
  await device.fill(0, 128 * 1024, { signal });
  await device.fill(256 * 1024, 128 * 1024, { signal });
  await sleep(50);
  assert.equal(source.gets.length, 4 + 4, '1 MiB ahead');
  await prefetchAll(device, { signal });
  assert.equal(device.presence.missing, 0);
  assert.equal(source.gets.length, 64);
  await prefetchAll(device, { signal });
  assert.equal(source.gets.length, 64, 'a complete device needs nothing');
});

test('a prefetch stops with its signal and with the first error', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(20, MIB));
  const source = await CountingSource.of(blob);
  source.before = () => sleep(10);
  await using store = await openStore(root.path);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await assert.rejects(prefetchAll(device, { signal: AbortSignal.timeout(5) }), { name: 'TimeoutError' });
  source.before = async () => {
    throw new ShoalError('SOURCE_FAILED', 'down');
  };
  await assert.rejects(prefetchAll(device, { signal }), { code: 'SOURCE_FAILED' });
  assert.equal(device.presence.complete, false);
});

chunkStoreSuite('local', async (contents) => {
  const root = await stateRoot();
  const blob = testBlob(contents);
  const store = await openStore(root.path);
  store.connect(await CountingSource.of(blob));
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(0, device.size, { signal });
  await device.flush();
  return {
    store: createLocalStore({ blobs: store }),
    refs: contents.map((_, index) => device.ref(index)),
    cleanup: async () => {
      await store.close();
      await root[Symbol.asyncDispose]();
    },
  };
});

test('a layer named by blake3 is refused: its files would be those of a sha256 layer with the same hex', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(2, 10_000));
  const twin = parseDigest(`blake3:${digestHex(blob.digest)}`);
  await using store = await openStore(root.path);
  await store.create(blob.digest, contentOf(blob));
  for (const use of [store.open(twin), store.create(twin, contentOf(blob)), store.readTree(twin), store.remove(twin)]) {
    await assert.rejects(use, { code: 'UNSUPPORTED_LAYER' });
  }
  assert.deepEqual(await store.list(), [blob.digest]);
});

async function flip(path: string, at: number, mask = 1): Promise<void> {
  const bytes = await readFile(path);
  bytes[at] = (bytes[at] as number) ^ mask;
  await writeFile(path, bytes, { flag: 'r+' });
}
