import type { Digest } from '../core/digest.ts';
import type { Labels, SnapshotInfo, SnapshotKind, Usage } from './snapshot-info.ts';

/** Everything that is stored of one snapshot. Records are never changed, only replaced. */
export interface SnapshotRecord {
  /** Positive, given once and never again, also after removal. The only part of a record that may go into a path. */
  readonly id: number;
  readonly info: SnapshotInfo;
  /** Zero until the snapshot is committed. */
  readonly usage: Usage;
  /** The blob this snapshot is served from; absent when its files were unpacked. */
  readonly lazy?: Digest;
}

/** One ancestor of a snapshot. */
export interface ParentLink {
  readonly id: number;
  readonly lazy?: Digest;
}

/** What mounting a snapshot needs (containerd core/snapshots/storage `Snapshot`). */
export interface SnapshotChain {
  readonly id: number;
  readonly kind: SnapshotKind;
  /** All ancestors, nearest first. */
  readonly parents: readonly ParentLink[];
}

/** The readable side: of a store the state that is on disk, of a transaction the state that would be. */
export interface MetaView {
  /** The record of this key or name. Throws NOT_FOUND. */
  getInfo(name: string): SnapshotRecord;
  /** The chain of an active snapshot or view. Throws NOT_FOUND; FAILED_PRECONDITION for a committed one. */
  getSnapshot(name: string): SnapshotChain;
  /** The chain that a snapshot on top of this committed one would get. Throws NOT_FOUND, INVALID_ARGUMENT. */
  parentChain(parent: string): readonly ParentLink[];
  /** All records, in no order, as they are now: later changes don't show, and nothing waits for the reader. */
  records(): readonly SnapshotRecord[];
  /** Name of each id. */
  idMap(): ReadonlyMap<number, string>;
}

/** The writable side: changes stay inside the transaction until it ends well. */
export interface MetaTransaction extends MetaView {
  /** A new active snapshot or view. Throws NOT_FOUND, INVALID_ARGUMENT (parent), ALREADY_EXISTS. */
  createSnapshot(kind: SnapshotKind, key: string, parent: string, labels: Labels): SnapshotChain;
  /**
   * Renames the active snapshot `key` to the committed snapshot `name`, keeping its id, and gives that id. Labels are
   * replaced; `parent` rebases one that had none. Throws ALREADY_EXISTS, NOT_FOUND, FAILED_PRECONDITION, INVALID_ARGUMENT.
   */
  commitActive(key: string, name: string, usage: Usage, options?: CommitOptions): number;
  /** Replaces the fields of `paths` (`labels`, `labels.<key>`; none means all that may change). Throws INVALID_ARGUMENT, NOT_FOUND. */
  updateInfo(change: { name: string; labels: Labels }, paths: readonly string[]): SnapshotInfo;
  /** Drops a record and gives what it was. Throws NOT_FOUND; FAILED_PRECONDITION when it has children. */
  remove(name: string): SnapshotRecord;
}

/** What a commit may set besides usage. */
export interface CommitOptions {
  readonly labels?: Labels;
  readonly parent?: string;
  readonly lazy?: Digest;
}

/** The snapshot metadata: reads at once from memory, writes one after the other, each one atomic and on disk. */
export interface MetaStore extends MetaView {
  /** Runs `change` with no other writer; its changes become visible together once they are on disk, or not at all. */
  update<T>(change: (transaction: MetaTransaction) => T | Promise<T>): Promise<T>;
  /** Ends after the writes under way. Idempotent; later updates throw UNAVAILABLE. */
  close(): Promise<void>;
}
