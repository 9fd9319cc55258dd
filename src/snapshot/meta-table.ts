import { ShoalError } from '../errors.ts';
import type {
  CommitOptions,
  MetaTransaction,
  MetaView,
  ParentLink,
  SnapshotChain,
  SnapshotRecord,
} from './metastore.ts';
import type { Labels, SnapshotInfo, SnapshotKind, Timestamp, Usage } from './snapshot-info.ts';
import { checkedLabels, checkedName } from './snapshot-info.ts';

/** A change of one id: the record it has from now on, or undefined when it is gone. */
export type Changes = ReadonlyMap<number, SnapshotRecord | undefined>;

/** The committed state in memory. */
export class MetaTable implements MetaView {
  readonly #byName = new Map<string, SnapshotRecord>();
  readonly #byId = new Map<number, SnapshotRecord>();
  readonly #children = new Map<string, number>();
  #records: readonly SnapshotRecord[] | undefined;

  getInfo(name: string): SnapshotRecord {
    const record = this.#byName.get(name);
    if (record === undefined) throw notFound(name);
    return record;
  }

  find(name: string): SnapshotRecord | undefined {
    return this.#byName.get(name);
  }

  findId(id: number): SnapshotRecord | undefined {
    return this.#byId.get(id);
  }

  /** How many snapshots have this one as parent. */
  childCount(name: string): number {
    return this.#children.get(name) ?? 0;
  }

  getSnapshot(name: string): SnapshotChain {
    return chainOf(this, name);
  }

  parentChain(parent: string): readonly ParentLink[] {
    return chainBelow(this, parent);
  }

  records(): readonly SnapshotRecord[] {
    this.#records ??= [...this.#byId.values()];
    return this.#records;
  }

  idMap(): ReadonlyMap<number, string> {
    return new Map(this.records().map((record) => [record.id, record.info.name]));
  }

  /** Makes `changes` the state. Removals first: a commit gives the same id another name. */
  apply(changes: Changes): void {
    this.#records = undefined;
    for (const [id, after] of changes) {
      const before = this.#byId.get(id);
      if (before !== undefined) {
        this.#byName.delete(before.info.name);
        this.#addChild(before.info.parent, -1);
      }
      if (after === undefined) this.#byId.delete(id);
      else this.#byId.set(id, after);
    }
    for (const after of changes.values()) {
      if (after === undefined) continue;
      this.#byName.set(after.info.name, after);
      this.#addChild(after.info.parent, 1);
    }
  }

  #addChild(parent: string, by: number): void {
    if (parent === '') return;
    const count = (this.#children.get(parent) ?? 0) + by;
    if (count === 0) this.#children.delete(parent);
    else this.#children.set(parent, count);
  }
}

/** One transaction over a table: reads see its own changes, the table stays as it is. */
export class StagedTable implements MetaTransaction {
  readonly #base: MetaTable;
  readonly #now: () => Timestamp;
  readonly #changes = new Map<number, SnapshotRecord | undefined>();
  /** Names as this transaction has them; undefined: gone. */
  readonly #names = new Map<string, SnapshotRecord | undefined>();
  #nextId: number;

  constructor(base: MetaTable, nextId: number, now: () => Timestamp) {
    this.#base = base;
    this.#nextId = nextId;
    this.#now = now;
  }

  get changes(): Changes {
    return this.#changes;
  }

  get nextId(): number {
    return this.#nextId;
  }

  find(name: string): SnapshotRecord | undefined {
    return this.#names.has(name) ? this.#names.get(name) : this.#base.find(name);
  }

  getInfo(name: string): SnapshotRecord {
    const record = this.find(name);
    if (record === undefined) throw notFound(name);
    return record;
  }

  getSnapshot(name: string): SnapshotChain {
    return chainOf(this, name);
  }

  parentChain(parent: string): readonly ParentLink[] {
    return chainBelow(this, parent);
  }

  records(): readonly SnapshotRecord[] {
    const untouched = this.#base.records().filter((record) => !this.#changes.has(record.id));
    return [...untouched, ...[...this.#changes.values()].filter((record) => record !== undefined)];
  }

  idMap(): ReadonlyMap<number, string> {
    return new Map(this.records().map((record) => [record.id, record.info.name]));
  }

  createSnapshot(kind: SnapshotKind, key: string, parent: string, labels: Labels): SnapshotChain {
    if (kind === 'committed')
      throw new ShoalError('INVALID_ARGUMENT', 'only active snapshots and views can be created');
    checkedName(key, 'snapshot key');
    const kept = checkedLabels(labels);
    const parents = parent === '' ? [] : chainBelow(this, parent);
    if (this.find(key) !== undefined) throw alreadyExists(key);
    const id = this.#nextId;
    this.#nextId += 1;
    const created = this.#now();
    const info: SnapshotInfo = { name: key, parent, kind, created, updated: created, labels: kept };
    this.#put({ id, info, usage: { sizeBytes: 0, inodes: 0 } });
    return { id, kind, parents };
  }

  commitActive(key: string, name: string, usage: Usage, options: CommitOptions = {}): number {
    checkedName(name, 'snapshot name');
    const labels = checkedLabels(options.labels ?? new Map());
    if (this.find(name) !== undefined) throw alreadyExists(name);
    const active = this.getInfo(key);
    if (active.info.kind !== 'active') {
      throw new ShoalError('FAILED_PRECONDITION', `snapshot ${quoted(key)} is not active, it can't be committed`);
    }
    const parent = this.#parentAfterCommit(active, options.parent ?? '');
    const created = this.#now();
    const info: SnapshotInfo = { name, parent, kind: 'committed', created, updated: created, labels };
    this.#names.set(key, undefined);
    this.#put({ id: active.id, info, usage, ...(options.lazy === undefined ? {} : { lazy: options.lazy }) });
    return active.id;
  }

  updateInfo(change: { name: string; labels: Labels }, paths: readonly string[]): SnapshotInfo {
    const record = this.getInfo(change.name);
    let labels: Labels = paths.length === 0 ? change.labels : record.info.labels;
    for (const path of paths) {
      if (path === 'labels') labels = change.labels;
      else if (path.startsWith('labels.')) {
        const key = path.slice('labels.'.length);
        labels = new Map(labels).set(key, change.labels.get(key) ?? '');
      } else {
        throw new ShoalError(
          'INVALID_ARGUMENT',
          `field ${quoted(path)} of snapshot ${quoted(change.name)} can't be updated`,
        );
      }
    }
    const info: SnapshotInfo = { ...record.info, labels: checkedLabels(labels), updated: this.#now() };
    this.#put({ ...record, info });
    return info;
  }

  remove(name: string): SnapshotRecord {
    const record = this.getInfo(name);
    if (this.#hasChild(name)) {
      throw new ShoalError('FAILED_PRECONDITION', `cannot remove snapshot ${quoted(name)}: it has children`);
    }
    this.#names.set(name, undefined);
    this.#changes.set(record.id, undefined);
    return record;
  }

  #parentAfterCommit(active: SnapshotRecord, asked: string): string {
    const { name, parent } = active.info;
    if (parent !== '' && asked !== '' && parent !== asked) {
      throw new ShoalError('INVALID_ARGUMENT', `the parent of snapshot ${quoted(name)} can't be changed by its commit`);
    }
    if (parent !== '' || asked === '') return parent;
    if (this.getInfo(asked).info.kind !== 'committed') {
      throw new ShoalError('FAILED_PRECONDITION', `parent ${quoted(asked)} is not committed`);
    }
    return asked;
  }

  #hasChild(name: string): boolean {
    let count = this.#base.childCount(name);
    for (const [id, after] of this.#changes) {
      if (this.#base.findId(id)?.info.parent === name) count -= 1;
      if (after?.info.parent === name) count += 1;
    }
    return count > 0;
  }

  #put(record: SnapshotRecord): void {
    this.#names.set(record.info.name, record);
    this.#changes.set(record.id, record);
  }
}

interface Finder {
  find(name: string): SnapshotRecord | undefined;
}

function chainOf(table: Finder, name: string): SnapshotChain {
  const record = table.find(name);
  if (record === undefined) throw notFound(name);
  if (record.info.kind === 'committed') {
    throw new ShoalError(
      'FAILED_PRECONDITION',
      `snapshot ${quoted(name)} is committed: only active ones and views mount`,
    );
  }
  const { parent, kind } = record.info;
  return { id: record.id, kind, parents: parent === '' ? [] : chainBelow(table, parent) };
}

function chainBelow(table: Finder, parent: string): readonly ParentLink[] {
  const links: ParentLink[] = [];
  for (let name = parent; name !== ''; ) {
    const record = table.find(name);
    if (record === undefined) throw new ShoalError('NOT_FOUND', `parent snapshot ${quoted(name)} does not exist`);
    if (record.info.kind !== 'committed') {
      throw new ShoalError('INVALID_ARGUMENT', `parent ${quoted(name)} is not a committed snapshot`);
    }
    links.push(record.lazy === undefined ? { id: record.id } : { id: record.id, lazy: record.lazy });
    name = record.info.parent;
  }
  return links;
}

function notFound(name: string): ShoalError {
  return new ShoalError('NOT_FOUND', `snapshot ${quoted(name)} does not exist`);
}

function alreadyExists(name: string): ShoalError {
  return new ShoalError('ALREADY_EXISTS', `snapshot ${quoted(name)} already exists`);
}

function quoted(name: string): string {
  return JSON.stringify(name.length > 200 ? `${name.slice(0, 200)}…` : name);
}
