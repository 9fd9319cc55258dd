import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseDigest } from '../../src/core/digest.ts';
import { createManualMounts } from '../../src/lazy/manual-mounts.ts';
import type { LazyRuns } from '../../src/lazy/runs.ts';
import type { TextDb } from '../../src/lazy/text-db.ts';
import { silentLogger } from '../../src/log.ts';

const { signal } = new AbortController();
const DIGEST = parseDigest(`sha256:${'ab'.repeat(32)}`);

/** A database whose every answer takes a turn, as LevelDB's do. */
function slowDb(): TextDb {
  const rows = new Map<string, string>();
  return {
    async get(key) {
      await nextTurn();
      return rows.get(key);
    },
    async put(key, value) {
      await nextTurn();
      rows.set(key, value);
    },
    async del(key) {
      rows.delete(key);
    },
    async *iterator() {
      yield* rows;
    },
  };
}

/** Everything up to the mount works; the mount itself fails, so that nothing of this machine is touched. */
function mountsThatFail(names: string[]) {
  const runs: Partial<LazyRuns> = {
    pin: () => () => {},
    async mount({ name }) {
      names.push(name);
      await nextTurn();
      throw new Error('no mount here');
    },
  };
  return createManualMounts({
    resolver: { resolve: async () => ({ digest: DIGEST, layers: [] }) },
    opener: { open: () => Promise.reject(new Error('there are no layers')), keepUnused: async () => {} },
    runs: runs as LazyRuns,
    images: { note() {}, list: () => [], namesOf: () => [], retain: async () => {}, flush: async () => {} },
    db: slowDb(),
    log: silentLogger,
  });
}

test('images mounted at the same time get runs of their own', async () => {
  const names: string[] = [];
  const mounts = mountsThatFail(names);
  const all = ['/a', '/b', '/c'].map((directory) => mounts.mount({ reference: 'app', directory }, { signal }));
  for (const { status } of await Promise.allSettled(all)) assert.equal(status, 'rejected');
  assert.deepEqual(names.sort(), ['m1', 'm2', 'm3']);
});

test('a directory takes one image at a time, and another after a mount that failed', async () => {
  const names: string[] = [];
  const mounts = mountsThatFail(names);
  const first = mounts.mount({ reference: 'app', directory: '/a' }, { signal });
  await assert.rejects(mounts.mount({ reference: 'other', directory: '/a' }, { signal }), { code: 'ALREADY_EXISTS' });
  await assert.rejects(first, { code: 'MOUNT_FAILED' });
  await assert.rejects(mounts.mount({ reference: 'other', directory: '/a' }, { signal }), { code: 'MOUNT_FAILED' });
  assert.equal(names.length, 2);
});
