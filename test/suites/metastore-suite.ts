import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ErrorCode, ShoalError } from '../../src/errors.ts';
import type { MetaStore, MetaTransaction, SnapshotChain } from '../../src/snapshot/metastore.ts';
import type { SnapshotKind } from '../../src/snapshot/snapshot-info.ts';

/** Opens an empty store; `close` also removes what it left on disk. */
export type MetaStoreFactory = () => Promise<{ store: MetaStore; close: () => Promise<void> }>;

const NO_LABELS: ReadonlyMap<string, string> = new Map();
const NOTHING = { sizeBytes: 0, inodes: 0 };

/** The snapshots that `populate` makes: name, kind, parent. */
const POPULATED: readonly (readonly [string, SnapshotKind, string])[] = [
  ['committed-1', 'committed', ''],
  ['committed-2', 'committed', 'committed-1'],
  ['active-1', 'active', ''],
  ['active-2', 'active', 'committed-1'],
  ['active-3', 'active', 'committed-2'],
  ['view-1', 'view', ''],
  ['view-2', 'view', 'committed-2'],
];

function create(transaction: MetaTransaction, kind: SnapshotKind, key: string, parent = ''): SnapshotChain {
  return transaction.createSnapshot(kind, key, parent, NO_LABELS);
}

function populate(transaction: MetaTransaction): void {
  for (const [name, kind, parent] of POPULATED) {
    if (kind !== 'committed') create(transaction, kind, name, parent);
    else {
      create(transaction, 'active', `${name}-tmp`, parent);
      transaction.commitActive(`${name}-tmp`, name, { sizeBytes: Number(name.at(-1)), inodes: 1 });
    }
  }
}

function code(expected: ErrorCode): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShoalError, String(error));
    assert.equal(error.code, expected);
    return true;
  };
}

/** A case either reads a store that was filled before, or writes inside a transaction on an empty one. */
type ReadCase = (store: MetaStore) => void | Promise<void>;
type WriteCase = (transaction: MetaTransaction) => void;

const READS: Readonly<Record<string, { populated: boolean; run: ReadCase }>> = {
  GetInfo: {
    populated: true,
    run(store) {
      for (const [name, kind, parent] of POPULATED) {
        const { info, usage } = store.getInfo(name);
        assert.deepEqual([info.name, info.kind, info.parent, info.labels.size], [name, kind, parent, 0]);
        assert.ok(Math.abs(info.created.seconds - Date.now() / 1000) < 30);
        assert.deepEqual(info.updated, info.created);
        assert.equal(usage.sizeBytes, kind === 'committed' ? Number(name.at(-1)) : 0);
      }
    },
  },
  GetInfoNotExist: {
    populated: true,
    run: (store) => assert.throws(() => store.getInfo('active-not-exist'), code('NOT_FOUND')),
  },
  GetInfoEmptyDB: {
    populated: false,
    run: (store) => assert.throws(() => store.getInfo('active-not-exist'), code('NOT_FOUND')),
  },
  Walk: {
    populated: true,
    run(store) {
      const found = store.records().map(({ info }) => [info.name, info.kind, info.parent]);
      assert.deepEqual(found.sort(), POPULATED.map((row) => [...row]).sort());
      assert.deepEqual([...store.idMap().values()].sort(), POPULATED.map(([name]) => name).sort());
    },
  },
  GetSnapshot: {
    populated: false,
    async run(store) {
      const made = await store.update((transaction) => {
        create(transaction, 'active', 'committed-tmp-1');
        transaction.commitActive('committed-tmp-1', 'committed-1', NOTHING);
        return new Map([
          ['active-1', create(transaction, 'active', 'active-1')],
          ['active-2', create(transaction, 'active', 'active-2', 'committed-1')],
          ['view-1', create(transaction, 'view', 'view-1')],
          ['view-2', create(transaction, 'view', 'view-2', 'committed-1')],
        ]);
      });
      for (const [name, chain] of made) assert.deepEqual(store.getSnapshot(name), chain);
    },
  },
  GetSnapshotNotExist: {
    populated: true,
    run: (store) => assert.throws(() => store.getSnapshot('active-not-exist'), code('NOT_FOUND')),
  },
  GetSnapshotCommitted: {
    populated: true,
    run: (store) => assert.throws(() => store.getSnapshot('committed-1'), code('FAILED_PRECONDITION')),
  },
  GetSnapshotEmptyDB: {
    populated: false,
    run: (store) => assert.throws(() => store.getSnapshot('active-not-exist'), code('NOT_FOUND')),
  },
};

const WRITES: Readonly<Record<string, WriteCase>> = {
  CreateActive(transaction) {
    const first = create(transaction, 'active', 'active-1');
    const view = create(transaction, 'view', 'view-1');
    assert.deepEqual([first.kind, view.kind], ['active', 'view']);
    assert.notEqual(view.id, first.id);
    const committed = transaction.commitActive('active-1', 'committed-1', NOTHING);
    assert.equal(committed, first.id);
    for (const kind of ['active', 'view'] as const) {
      const next = create(transaction, kind, `${kind}-on-top`, 'committed-1');
      assert.notEqual(next.id, first.id);
      assert.equal(next.kind, kind);
      assert.deepEqual(next.parents, [{ id: committed }]);
    }
  },
  CreateActiveNotExist(transaction) {
    assert.throws(() => create(transaction, 'active', 'active-1', 'does-not-exist'), code('NOT_FOUND'));
  },
  CreateActiveExist(transaction) {
    populate(transaction);
    for (const name of ['active-1', 'committed-1']) {
      assert.throws(() => create(transaction, 'active', name), code('ALREADY_EXISTS'));
    }
  },
  CreateActiveFromActive(transaction) {
    populate(transaction);
    assert.throws(() => create(transaction, 'active', 'active-new', 'active-1'), code('INVALID_ARGUMENT'));
  },
  Commit(transaction) {
    const active = create(transaction, 'active', 'active-1');
    assert.equal(transaction.commitActive('active-1', 'committed-1', NOTHING), active.id);
    assert.throws(() => transaction.getSnapshot('active-1'), code('NOT_FOUND'));
    assert.throws(() => transaction.getSnapshot('committed-1'), code('FAILED_PRECONDITION'));
  },
  CommitNotExist(transaction) {
    populate(transaction);
    assert.throws(() => transaction.commitActive('active-not-exist', 'committed-3', NOTHING), code('NOT_FOUND'));
  },
  CommitExist(transaction) {
    populate(transaction);
    assert.throws(() => transaction.commitActive('active-1', 'committed-1', NOTHING), code('ALREADY_EXISTS'));
  },
  CommitCommitted(transaction) {
    populate(transaction);
    assert.throws(() => transaction.commitActive('committed-1', 'committed-3', NOTHING), code('FAILED_PRECONDITION'));
  },
  CommitViewFails(transaction) {
    populate(transaction);
    assert.throws(() => transaction.commitActive('view-1', 'committed-3', NOTHING), code('FAILED_PRECONDITION'));
  },
  Remove(transaction) {
    const active = create(transaction, 'active', 'active-1');
    transaction.commitActive('active-1', 'committed-1', NOTHING);
    const views = ['view-1', 'view-2'].map((key) => create(transaction, 'view', key, 'committed-1'));
    assert.throws(() => transaction.remove('active-1'), code('NOT_FOUND'));
    for (const [at, key] of ['view-1', 'view-2'].entries()) {
      const removed = transaction.remove(key);
      assert.deepEqual([removed.id, removed.info.kind], [views[at]?.id, 'view']);
    }
    const removed = transaction.remove('committed-1');
    assert.deepEqual([removed.id, removed.info.kind], [active.id, 'committed']);
  },
  RemoveNotExist(transaction) {
    assert.throws(() => transaction.remove('does-not-exist'), code('NOT_FOUND'));
  },
  RemoveWithChildren(transaction) {
    populate(transaction);
    for (const _time of [1, 2]) {
      assert.throws(() => transaction.remove('committed-1'), code('FAILED_PRECONDITION'));
    }
  },
  ParentIDs(transaction) {
    populate(transaction);
    const idOf = (name: string): number => transaction.getInfo(name).id;
    const chains: Readonly<Record<string, readonly string[]>> = {
      'active-1': [],
      'active-2': ['committed-1'],
      'active-3': ['committed-2', 'committed-1'],
      'view-1': [],
      'view-2': ['committed-2', 'committed-1'],
    };
    for (const [name, parents] of Object.entries(chains)) {
      const chain = transaction.getSnapshot(name);
      assert.equal(chain.id, idOf(name));
      assert.deepEqual(
        chain.parents.map(({ id }) => id),
        parents.map(idOf),
      );
    }
    for (const [name, depth] of [
      ['committed-1', 1],
      ['committed-2', 2],
    ] as const) {
      const view = create(transaction, 'view', `test-${name}`, name);
      assert.equal(view.parents.length, depth);
      assert.equal(view.parents[0]?.id, idOf(name));
      assert.deepEqual(transaction.parentChain(name), view.parents);
    }
  },
  Rebase(transaction) {
    populate(transaction);
    const rebased = (at: number, before: string, after: string): void => {
      create(transaction, 'active', `rebase-active-${at}`, before);
      const name = `rebase-committed-${at}`;
      const id = transaction.commitActive(`rebase-active-${at}`, name, NOTHING, { parent: after });
      const view = create(transaction, 'view', `${name}-view`, name);
      const parent = transaction.getInfo(after || before).id;
      assert.deepEqual(
        view.parents.map((link) => link.id),
        [id, parent],
      );
      assert.throws(() => transaction.remove(name), code('FAILED_PRECONDITION'));
    };
    rebased(1, '', 'committed-1');
    rebased(2, 'committed-1', 'committed-1');
    assert.throws(() => rebased(3, '', 'nonexist'), code('NOT_FOUND'));
    rebased(4, 'committed-1', '');
    assert.throws(() => rebased(5, 'committed-1', 'committed-2'), code('INVALID_ARGUMENT'));
    assert.throws(() => rebased(6, '', 'active-1'), code('FAILED_PRECONDITION'));
  },
};

/** The 22 cases of containerd's metadata store suite (core/snapshots/storage/metastore_test.go), by their names. */
export function metastoreSuite(name: string, open: MetaStoreFactory): void {
  describe(`${name} metadata store`, () => {
    for (const [title, { populated, run }] of Object.entries(READS)) {
      it(title, async () => {
        const { store, close } = await open();
        try {
          if (populated) await store.update(populate);
          await run(store);
        } finally {
          await close();
        }
      });
    }
    for (const [title, run] of Object.entries(WRITES)) {
      it(title, async () => {
        const { store, close } = await open();
        try {
          await store.update(run);
        } finally {
          await close();
        }
      });
    }
  });
}
