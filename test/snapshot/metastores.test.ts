import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Level } from 'level';
import { hasCode } from '../../src/errors.ts';
import type { MetaStore, SnapshotRecord } from '../../src/snapshot/metastore.ts';
import { createMemoryMetaStore, openLevelMetaStore } from '../../src/snapshot/metastores.ts';
import { metastoreSuite } from '../suites/metastore-suite.ts';

const NOTHING = { sizeBytes: 0, inodes: 0 };
const NO_LABELS: ReadonlyMap<string, string> = new Map();

async function openOnDisk() {
  const root = await mkdtemp(join(tmpdir(), 'shoal-meta-'));
  let db = new Level<string, string>(root);
  return {
    db: () => db,
    store: await openLevelMetaStore({ db }),
    async reopen(): Promise<MetaStore> {
      await db.close();
      db = new Level<string, string>(root);
      return openLevelMetaStore({ db });
    },
    async close() {
      await db.close();
      await rm(root, { recursive: true });
    },
  };
}

metastoreSuite('level', openOnDisk);
metastoreSuite('memory', async () => {
  const store = createMemoryMetaStore();
  return { store, close: () => store.close() };
});

describe('the metadata store on disk', () => {
  it('gives back after a restart exactly what it had, __proto__ and odd names included', async () => {
    const disk = await openOnDisk();
    const labels = new Map([
      ['__proto__', 'a'],
      ['constructor', 'b'],
      ['x\0y', '../..'],
    ]);
    await disk.store.update((transaction) => {
      transaction.createSnapshot('active', '__proto__', '', labels);
      transaction.commitActive('__proto__', '/../\0', { sizeBytes: 5, inodes: 2 }, { labels });
      transaction.createSnapshot('view', 'k'.repeat(5000), '/../\0', NO_LABELS);
    });
    const before = [...disk.store.records()];
    const after = await disk.reopen();
    assert.deepEqual(after.records(), before);
    assert.deepEqual([...after.getInfo('/../\0').info.labels], [...labels]);
    await disk.close();
  });

  it('never gives an id twice, not even after a restart', async () => {
    const disk = await openOnDisk();
    const first = await disk.store.update((transaction) => transaction.createSnapshot('active', 'a', '', NO_LABELS));
    await disk.store.update((transaction) => transaction.remove('a'));
    const store = await disk.reopen();
    const second = await store.update((transaction) => transaction.createSnapshot('active', 'a', '', NO_LABELS));
    assert.ok(second.id > first.id);
    await disk.close();
  });

  it('shows nothing of a transaction that fails, in memory or on disk', async () => {
    const disk = await openOnDisk();
    const failing = disk.store.update((transaction) => {
      transaction.createSnapshot('active', 'a', '', NO_LABELS);
      throw new Error('no');
    });
    await assert.rejects(failing, /no/);
    assert.deepEqual(disk.store.records(), []);
    assert.deepEqual((await disk.reopen()).records(), []);
    await disk.close();
  });

  it('refuses a store from the future and a record that is no record', async () => {
    for (const [key, value] of [
      ['format', '2'],
      ['record/1', '{}'],
      ['record/x', '{}'],
      ['next-id', '0'],
    ] as const) {
      const disk = await openOnDisk();
      await disk.db().sublevel('snapshots').put(key, value);
      await assert.rejects(disk.reopen(), (error) => hasCode(error, 'STATE_CORRUPT'));
      await disk.close();
    }
  });
});

describe('the metadata store', () => {
  it('keeps a reader on the state it began with', async () => {
    const store = createMemoryMetaStore();
    await store.update((transaction) => transaction.createSnapshot('active', 'a', '', NO_LABELS));
    const records = store.records();
    await store.update((transaction) => transaction.remove('a'));
    assert.equal(records.length, 1);
    assert.equal(store.records().length, 0);
  });

  it('refuses labels of more than 4096 bytes and drops empty ones', async () => {
    const store = createMemoryMetaStore();
    const withLabel = (key: string, value: string) =>
      store.update((transaction) => transaction.createSnapshot('active', key, '', new Map([[key, value]])));
    await withLabel('k', 'v'.repeat(4095));
    await assert.rejects(withLabel('l', 'v'.repeat(4096)), (error) => hasCode(error, 'INVALID_ARGUMENT'));
    await assert.rejects(withLabel('m', 'é'.repeat(2048)), (error) => hasCode(error, 'INVALID_ARGUMENT'));
    await withLabel('empty', '');
    assert.equal(store.getInfo('empty').info.labels.size, 0);
  });

  it('says no to updates after close, and closes twice', async () => {
    const store = createMemoryMetaStore();
    await store.close();
    await store.close();
    await assert.rejects(
      store.update(() => {}),
      (error) => hasCode(error, 'UNAVAILABLE'),
    );
  });

  it('stays sound over any sequence of operations, failed ones included', async () => {
    const name = fc.constantFrom('a', 'b', 'c', 'd');
    const step = fc.oneof(
      fc.record({ do: fc.constantFrom('active', 'view'), key: name, parent: fc.constantFrom('', 'a', 'b', 'c') }),
      fc.record({ do: fc.constant('commit'), key: name, parent: name }),
      fc.record({ do: fc.constant('remove'), key: name, parent: fc.constant('') }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(step, { maxLength: 3 }), { maxLength: 12 }), async (batches) => {
        const store = createMemoryMetaStore();
        for (const steps of batches) {
          await store.update((transaction) => {
            for (const { do: verb, key, parent } of steps) {
              try {
                if (verb === 'commit') transaction.commitActive(key, parent, NOTHING);
                else if (verb === 'remove') transaction.remove(key);
                else transaction.createSnapshot(verb as 'active' | 'view', key, parent, NO_LABELS);
              } catch {}
              checkSound(transaction.records());
            }
          });
          checkSound(store.records());
          for (const { info } of store.records()) assert.equal(store.getInfo(info.name).info, info);
        }
      }),
      { numRuns: 200 },
    );
  });
});

/** Names and ids are unique, and every parent is there and committed. */
function checkSound(records: readonly SnapshotRecord[]): void {
  const byName = new Map(records.map((record) => [record.info.name, record.info]));
  assert.equal(byName.size, records.length);
  assert.equal(new Set(records.map(({ id }) => id)).size, records.length);
  for (const { info } of records) if (info.parent !== '') assert.equal(byName.get(info.parent)?.kind, 'committed');
}
