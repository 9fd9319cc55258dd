import type { Level } from 'level';
import { parseDigest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import { type Changes, MetaTable, StagedTable } from './meta-table.ts';
import type { MetaStore, MetaTransaction, SnapshotRecord } from './metastore.ts';
import { fineClock, type SnapshotInfo, type SnapshotKind, type Timestamp } from './snapshot-info.ts';

/** Where changes go before they count. */
interface Journal {
  /** Resolves when all of it is on disk; rejects with STORE_IO when nothing is. */
  write(changes: Changes, nextId: number): Promise<void>;
}

/** What both stores can be told. */
export interface MetaStoreInit {
  /** Time of created and updated; the machine's clock by default. */
  readonly now?: () => Timestamp;
}

/** A store that forgets: for tests and the simulator. */
export function createMemoryMetaStore(init: MetaStoreInit = {}): MetaStore {
  return new JournaledMetaStore({ journal: { write: async () => {} } }, { now: init.now ?? fineClock() });
}

const SUBLEVEL = 'snapshots';
const NEXT_ID = 'next-id';
const RECORD_PREFIX = 'record/';
/** Layout of the records; a store written by a later shoal is refused, not guessed at. */
const FORMAT_KEY = 'format';
const FORMAT = '1';

/**
 * The store of the daemon: the `snapshots` part of the LevelDB under `<root>/meta`, which stays open when the store
 * closes. All records are read now. Throws STATE_CORRUPT when they can't be what a store wrote.
 */
export async function openLevelMetaStore(
  components: { db: Level<string, string> },
  init: MetaStoreInit = {},
): Promise<MetaStore> {
  const level = components.db.sublevel<string, string>(SUBLEVEL, {});
  const records: SnapshotRecord[] = [];
  let nextId = 1;
  for await (const [key, value] of level.iterator()) {
    if (key === NEXT_ID) nextId = storedId(value, NEXT_ID);
    else if (key.startsWith(RECORD_PREFIX)) records.push(decodeRecord(key, value));
    else if (key === FORMAT_KEY && value !== FORMAT) {
      throw new ShoalError('STATE_CORRUPT', `the snapshot store has format ${value}, this shoal reads ${FORMAT}`);
    }
  }
  checkRecords(records, nextId);
  const journal: Journal = {
    async write(changes, afterId) {
      const operations = [...changes].map(([id, record]) => {
        const key = `${RECORD_PREFIX}${id}`;
        if (record === undefined) return { type: 'del' as const, key, sublevel: level };
        return { type: 'put' as const, key, value: encodeRecord(record), sublevel: level };
      });
      try {
        await components.db.batch(
          [
            ...operations,
            { type: 'put', key: NEXT_ID, value: String(afterId), sublevel: level },
            { type: 'put', key: FORMAT_KEY, value: FORMAT, sublevel: level },
          ],
          { sync: true },
        );
      } catch (cause) {
        throw new ShoalError('STORE_IO', 'the snapshot store could not be written', { cause });
      }
    },
  };
  return new JournaledMetaStore({ journal }, { now: init.now ?? fineClock(), records, nextId });
}

class JournaledMetaStore implements MetaStore {
  readonly #journal: Journal;
  readonly #now: () => Timestamp;
  readonly #table = new MetaTable();
  #nextId: number;
  #lastWrite: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(
    components: { journal: Journal },
    init: { now: () => Timestamp; records?: readonly SnapshotRecord[]; nextId?: number },
  ) {
    this.#journal = components.journal;
    this.#now = init.now;
    this.#nextId = init.nextId ?? 1;
    this.#table.apply(new Map(init.records?.map((record) => [record.id, record])));
  }

  getInfo = (name: string) => this.#table.getInfo(name);
  getSnapshot = (name: string) => this.#table.getSnapshot(name);
  parentChain = (parent: string) => this.#table.parentChain(parent);
  records = () => this.#table.records();
  idMap = () => this.#table.idMap();

  update<T>(change: (transaction: MetaTransaction) => T | Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new ShoalError('UNAVAILABLE', 'the snapshot store is closed'));
    const result = this.#lastWrite.then(() => this.#run(change));
    this.#lastWrite = result.catch(() => {});
    return result;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#lastWrite;
  }

  async #run<T>(change: (transaction: MetaTransaction) => T | Promise<T>): Promise<T> {
    const staged = new StagedTable(this.#table, this.#nextId, this.#now);
    const result = await change(staged);
    if (staged.changes.size > 0) {
      await this.#journal.write(staged.changes, staged.nextId);
      this.#table.apply(staged.changes);
      this.#nextId = staged.nextId;
    }
    return result;
  }
}

function encodeRecord(record: SnapshotRecord): string {
  const { info, usage, lazy } = record;
  const { name, parent, kind, created, updated } = info;
  return JSON.stringify({ name, parent, kind, created, updated, labels: [...info.labels], usage, lazy });
}

function decodeRecord(key: string, text: string): SnapshotRecord {
  const id = storedId(key.slice(RECORD_PREFIX.length), key);
  try {
    const value = JSON.parse(text) as Record<string, unknown>;
    const info: SnapshotInfo = {
      name: stringOf(value.name),
      parent: stringOf(value.parent),
      kind: kindOf(value.kind),
      created: timestampOf(value.created),
      updated: timestampOf(value.updated),
      labels: labelsOf(value.labels),
    };
    const { sizeBytes, inodes } = value.usage as Record<string, unknown>;
    const usage = { sizeBytes: numberOf(sizeBytes), inodes: numberOf(inodes) };
    return { id, info, usage, ...(value.lazy === undefined ? {} : { lazy: parseDigest(value.lazy) }) };
  } catch (cause) {
    throw new ShoalError('STATE_CORRUPT', `snapshot record ${id} can't be read`, { cause });
  }
}

function checkRecords(records: readonly SnapshotRecord[], nextId: number): void {
  const byName = new Map(records.map((record) => [record.info.name, record]));
  if (byName.size !== records.length) throw new ShoalError('STATE_CORRUPT', 'two snapshots have the same name');
  for (const { id, info } of records) {
    if (id >= nextId) throw new ShoalError('STATE_CORRUPT', `snapshot ${id} is newer than the id counter ${nextId}`);
    if (info.parent !== '' && byName.get(info.parent)?.info.kind !== 'committed') {
      throw new ShoalError('STATE_CORRUPT', `snapshot ${id} has no parent ${JSON.stringify(info.parent)}`);
    }
  }
  const sound = new Set<string>(['']);
  for (const { id, info } of records) {
    const path = new Set<string>();
    for (let name = info.name; !sound.has(name); name = byName.get(name)?.info.parent ?? '') {
      if (path.has(name)) throw new ShoalError('STATE_CORRUPT', `snapshot ${id} is its own ancestor`);
      path.add(name);
    }
    for (const name of path) sound.add(name);
  }
}

function storedId(text: string, key: string): number {
  const id = Number(text);
  if (!/^[1-9]\d*$/.test(text) || !Number.isSafeInteger(id)) {
    throw new ShoalError('STATE_CORRUPT', `${JSON.stringify(key)} of the snapshot store is not a number`);
  }
  return id;
}

function stringOf(value: unknown): string {
  if (typeof value !== 'string') throw new TypeError('not a string');
  return value;
}

function numberOf(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw new TypeError('not a whole number');
  return value as number;
}

function kindOf(value: unknown): SnapshotKind {
  if (value !== 'view' && value !== 'active' && value !== 'committed') throw new TypeError('not a kind');
  return value;
}

function timestampOf(value: unknown): Timestamp {
  const { seconds, nanos } = value as Record<string, unknown>;
  return { seconds: numberOf(seconds), nanos: numberOf(nanos) };
}

function labelsOf(value: unknown): ReadonlyMap<string, string> {
  if (!Array.isArray(value)) throw new TypeError('not a list of labels');
  return new Map(value.map((entry: unknown[]) => [stringOf(entry[0]), stringOf(entry[1])]));
}
