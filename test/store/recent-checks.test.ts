import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createLocalStore } from '../../src/store/local-store.ts';
import { createRecentChecks } from '../../src/store/recent-checks.ts';
import { randomChunks, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, stateRoot } from './store-fixture.ts';

const signal = AbortSignal.timeout(60_000);
const MINUTE_MS = 60_000;

test('a hash stands for the bytes for minutes, and no longer than until somebody writes to the file', async () => {
  await using root = await stateRoot();
  await using file = await open(join(root.path, 'file'), 'w+');
  await file.write('as it was');
  let nowMs = 0;
  const checks = createRecentChecks({ clock: { nowMs: () => nowMs } }, { fd: file.fd });
  const stamp = checks.stamp();
  assert.equal(checks.has(7, stamp), false);
  checks.note(7, stamp);
  nowMs += 4 * MINUTE_MS;
  assert.equal(checks.has(7, checks.stamp()), true);
  assert.equal(checks.has(8, checks.stamp()), false);
  nowMs += 2 * MINUTE_MS;
  assert.equal(checks.has(7, checks.stamp()), false);
  checks.note(7, checks.stamp());
  assert.equal(checks.has(7, checks.stamp()), true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await file.write('x', 0);
  assert.equal(checks.has(7, checks.stamp()), false);
  // What was read before the write says nothing of the file as it is now.
  checks.note(7, stamp);
  assert.equal(checks.has(7, checks.stamp()), false);
});

test('bytes that change on disk between two neighbours do not reach the second', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(2, 100_000));
  await using store = await openStore(root.path);
  const source = await CountingSource.of(blob);
  store.connect(source);
  const device = await store.create(blob.digest, contentOf(blob));
  await device.fill(0, device.size, { signal });
  assert.equal(await device.flush(), true);
  const local = createLocalStore({ blobs: store });
  const right = Buffer.from(blob.chunks[1] as Uint8Array);
  for (let neighbour = 0; neighbour < 3; neighbour += 1) {
    assert.deepEqual(Buffer.from(await local.lend(device.ref(1), { signal })), right);
  }
  await new Promise((resolve) => setTimeout(resolve, 20));
  await using file = await open(device.path, 'r+');
  await file.write('wrong', device.table.row(1).deviceOffset + 50_000);
  await assert.rejects(local.lend(device.ref(1), { signal }), { code: 'CHUNK_MISSING' });
  assert.equal(device.stats().corrupt, 1);
  await device.fill(0, device.size, { signal });
  assert.deepEqual(Buffer.from(await local.lend(device.ref(1), { signal })), right);
});
