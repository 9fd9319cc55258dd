import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, statfsSync, truncateSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ERRNO } from '../../src/kernel/errno.ts';
import { markPreAccess, openPreContentGroup, openUnnoticed } from '../../src/kernel/fanotify.ts';
import { closeRaw, readRaw } from '../../src/kernel/libc.ts';
import { cloneRange } from '../../src/kernel/reflink.ts';
import type { BlobDevice } from '../../src/store/blob-device.ts';
import type { BlobStore } from '../../src/store/blob-store.ts';
import { dedup } from '../../src/store/dedup.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { route } from '../../src/store/route.ts';
import { cannotMount, cannotRun, Lab } from '../mount/mount-lab.ts';
import { MemoryIndexDb, randomChunks, type TestBlob, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, stateRoot, wrongRows } from './store-fixture.ts';

const signal = new AbortController().signal;
const TIMEOUT = 60_000;
/** The smallest disk mkfs.xfs takes. */
const DISK_BYTES = 320 * 1024 * 1024;
const XFS = ['mkfs.xfs', '-q', '-m', 'reflink=1'] as const;
const EXT4 = ['mkfs.ext4', '-q', '-F'] as const;
const skipXfs = cannotMount('xfs') || cannotRun('mkfs.xfs') || cannotRun('filefrag') || cannotLoop();
const skipExt4 = cannotMount('ext4') || cannotRun('mkfs.ext4') || cannotLoop();

// Lengths are no multiples of a block: the padding is shared too. What is small is not worth sharing.
const small = randomChunks(3, 20_001);
const large = [...randomChunks(6, 70_001), ...randomChunks(2, 300_000)];
const common = [...small, ...large];
const LARGE_BLOCKS = large.reduce((sum, { length }) => sum + Math.ceil(length / 4096), 0);
const a = testBlob([...randomChunks(3, 999), ...common]);
const b = testBlob([...common.toReversed(), ...randomChunks(2, 999)]);

test('large chunks two layers have in common lie on disk once', { skip: skipXfs, timeout: TIMEOUT }, async () => {
  using disk = new Disk(XFS);
  const db = new MemoryIndexDb();
  {
    await using store = await openStore(disk.root, { db });
    const source = await connected(store);
    await filled(store, a);
    const before = usedBlocks(disk.root);
    const second = await filled(store, b);
    assert.equal(source.gets.length, a.table.count + 2, 'only what is new is fetched');
    assert.deepEqual(await wrongRows(second), []);
    const sharedBlocks = extentsOf(second.path)
      .filter(({ flags }) => flags.includes('shared'))
      .reduce((sum, { length }) => sum + length, 0);
    assert.equal(sharedBlocks, LARGE_BLOCKS);
    const grown = usedBlocks(disk.root) - before;
    assert.ok(grown < LARGE_BLOCKS / 2, `${grown} blocks more for ${LARGE_BLOCKS} shared ones`);
  }
  disk.remount();
  await using store = await openStore(disk.root, { db, verifyOnOpen: 'full' });
  await store.remove(a.digest);
  const second = await store.open(b.digest);
  assert.equal(second?.complete, true, 'what is shared outlives a restart, and its other owner');
});

test('bytes that rotted on disk under the page cache are not shared, and are replaced where they were', {
  skip: skipXfs,
  timeout: TIMEOUT,
}, async () => {
  using disk = new Disk(XFS);
  await using store = await openStore(disk.root);
  const source = await connected(store);
  const first = await filled(store, a);
  const rotten = a.table.count - 1;
  const { deviceOffset } = a.table.row(rotten);
  const block = deviceOffset / 4096;
  const extent = extentsOf(first.path).find(({ logical, length }) => logical <= block && block < logical + length);
  assert.ok(extent);
  disk.damage((extent.physical + block - extent.logical) * 4096 + 100);
  assert.deepEqual(await wrongRows(first), [], 'the page cache hides it');
  const before = source.gets.length;
  const second = await filled(store, b);
  assert.deepEqual(await wrongRows(second), []);
  for (let wait = 0; !first.hasChunk(rotten) && wait < 400; wait += 1) await sleep(5);
  assert.equal(first.stats().corrupt, 1);
  assert.ok(source.gets.length - before <= 3, 'what is new, and perhaps the rotten one');
  await store.close();
  disk.remount();
  await using again = await openStore(disk.root, { verifyOnOpen: 'full' });
  for (const blob of [a, b]) assert.equal((await again.open(blob.digest))?.complete, true);
});

test('sharing among layers that a trap watches raises no event, also after a restart', {
  skip: skipXfs || cannotWatch(),
  timeout: TIMEOUT,
}, async () => {
  using disk = new Disk(XFS);
  const db = new MemoryIndexDb();
  const group = openPreContentGroup();
  try {
    {
      await using store = await openStore(disk.root, { db, openData: openUnnoticed });
      await connected(store);
      for (const blob of [a, b]) markPreAccess(group, (await store.create(blob.digest, contentOf(blob))).fd);
      await filled(store, a);
    }
    await using store = await openStore(disk.root, { db, openData: openUnnoticed });
    await connected(store);
    const second = await filled(store, b);
    assert.ok(second.complete);
    assert.equal(readRaw(group, new Uint8Array(4096)), -ERRNO.EAGAIN);
    assert.ok(extentsOf(second.path).some(({ flags }) => flags.includes('shared')));
  } finally {
    closeRaw(group);
  }
});

test('a file system that cannot share is asked once, and the chunks are written', {
  skip: skipExt4,
  timeout: TIMEOUT,
}, async () => {
  using disk = new Disk(EXT4);
  const answers: number[] = [];
  const clone: typeof cloneRange = async (...range) => {
    const answer = await cloneRange(...range);
    answers.push(answer);
    return answer;
  };
  await using store = await openStore(disk.root, { clone });
  await connected(store);
  await filled(store, a);
  const second = await filled(store, b);
  assert.deepEqual(await wrongRows(second), []);
  assert.deepEqual(answers, [-ERRNO.EOPNOTSUPP]);
});

test('an answer that is not true, or an error, costs a write and no wrong byte', async () => {
  for (const clone of [async () => 0, async () => -ERRNO.ENOSPC, () => Promise.reject(new Error('too many calls'))]) {
    await using root = await stateRoot();
    await using store = await openStore(root.path, { clone });
    await connected(store);
    const first = await filled(store, a);
    const second = await filled(store, b);
    for (const device of [first, second]) assert.deepEqual(await wrongRows(device), []);
  }
});

test('a chunk read from a layer that was removed since is not shared', async () => {
  await using root = await stateRoot();
  let asked = 0;
  await using store = await openStore(root.path, { clone: async () => asked++ });
  await connected(store);
  const { onDisk } = await (await filled(store, a)).readChunk(a.table.count - 1, { signal });
  await store.remove(a.digest);
  assert.equal(await onDisk?.shareWith(0, 0), false);
  assert.equal(asked, 0);
});

test('a range is cloned in place, and what cannot be is refused with its errno', {
  skip: skipXfs,
  timeout: TIMEOUT,
}, async () => {
  using disk = new Disk(XFS);
  const [from, to] = ['from', 'to'].map((name) => openSync(`${disk.root}/${name}`, 'w+')) as [number, number];
  try {
    writeSync(from, Buffer.alloc(12_288, 'abcd'));
    writeSync(to, Buffer.alloc(16_384, '-'));
    assert.equal(await cloneRange({ fd: from, offset: 4096 }, { fd: to, offset: 8192 }, 4096), 0);
    const expected = Buffer.concat([Buffer.alloc(8192, '-'), Buffer.alloc(4096, 'abcd'), Buffer.alloc(4096, '-')]);
    assert.ok(readFileSync(`${disk.root}/to`).equals(expected));
    assert.equal(await cloneRange({ fd: from, offset: 1 }, { fd: to, offset: 0 }, 4096), -ERRNO.EINVAL);
    assert.equal(await cloneRange({ fd: 9_999, offset: 0 }, { fd: to, offset: 0 }, 4096), -ERRNO.EBADF);
  } finally {
    closeSync(from);
    closeSync(to);
  }
});

/** A file system of its own, on a loop device. */
class Disk implements Disposable {
  readonly root: string;
  readonly #lab = new Lab();
  readonly #image: string;

  constructor([program, ...options]: readonly [string, ...string[]]) {
    this.#image = this.#lab.file('image', '');
    this.root = this.#lab.at('mnt', 'root');
    try {
      truncateSync(this.#image, DISK_BYTES);
      execFileSync(program, [...options, this.#image], { stdio: 'pipe' });
      this.#mount();
      mkdirSync(this.root, { mode: 0o700 });
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #mount(): void {
    execFileSync('mount', ['-o', 'loop', this.#image, this.#lab.dir('mnt')], { stdio: 'pipe' });
  }

  /** Forgets what the page cache holds. */
  remount(): void {
    execFileSync('umount', [this.#lab.at('mnt')], { stdio: 'pipe' });
    this.#mount();
  }

  /** Changes a byte of the disk behind the file system's back. */
  damage(offset: number): void {
    const fd = openSync(this.#image, 'r+');
    writeSync(fd, Uint8Array.of(0x55), 0, 1, offset);
    writeSync(fd, Uint8Array.of(0xaa), 0, 1, offset + 1);
    closeSync(fd);
  }

  [Symbol.dispose](): void {
    this.#lab[Symbol.dispose]();
  }
}

function cannotWatch(): string | false {
  try {
    closeRaw(openPreContentGroup());
    return false;
  } catch (error) {
    return `no pre-content events: ${error instanceof Error ? error.message : error}`;
  }
}

function cannotLoop(): string | false {
  return spawnSync('losetup', ['--find']).status === 0 ? false : 'losetup finds no loop device';
}

async function connected(store: BlobStore): Promise<CountingSource> {
  const source = await CountingSource.of(a, b);
  store.connect(dedup(route(createLocalStore({ blobs: store }), source)));
  return source;
}

async function filled(store: BlobStore, blob: TestBlob): Promise<BlobDevice> {
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(0, device.size, { signal });
  await device.flush();
  return device;
}

function usedBlocks(path: string): number {
  execFileSync('sync', ['-f', path]);
  const { blocks, bfree } = statfsSync(path);
  return blocks - bfree;
}

function extentsOf(path: string): { logical: number; physical: number; length: number; flags: string }[] {
  const lines = execFileSync('filefrag', ['-s', '-v', '-b4096', path], { encoding: 'utf8' });
  const rows = lines.matchAll(/^ *\d+: +(\d+)\.\. *\d+: +(\d+)\.\. *\d+: +(\d+):(.*)$/gm);
  return [...rows].map(([, logical, physical, length, flags]) => ({
    logical: Number(logical),
    physical: Number(physical),
    length: Number(length),
    flags: flags as string,
  }));
}
