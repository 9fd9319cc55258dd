import { ShoalError } from '../errors.ts';

/** What a snapshot is: being written (active), a read-only look (view), or a finished layer (committed). */
export type SnapshotKind = 'view' | 'active' | 'committed';

/** A point in wall-clock time as protobuf has it: whole seconds since 1970 and nanoseconds within the second. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
}

/** Labels are data of the client: a Map, so that no name can have a meaning of its own. */
export type Labels = ReadonlyMap<string, string>;

/** What containerd knows of a snapshot (containerd core/snapshots `Info`). */
export interface SnapshotInfo {
  readonly name: string;
  /** Name of the parent, empty when there is none. */
  readonly parent: string;
  readonly kind: SnapshotKind;
  readonly created: Timestamp;
  readonly updated: Timestamp;
  readonly labels: Labels;
}

/** Disk space of one snapshot, without its parents. */
export interface Usage {
  readonly sizeBytes: number;
  readonly inodes: number;
}

/** A label key and its value may have this many bytes together (containerd pkg/labels). */
export const MAX_LABEL_BYTES = 4096;
/** Bytes of a snapshot name; the limit bbolt sets in containerd's own store. */
export const MAX_NAME_BYTES = 32 * 1024;

/** The password that nydus-snapshotter's clients put into a label: used, never kept or shown. */
export const SECRET_LABEL = 'containerd.io/snapshot/pullsecret';

/**
 * The labels a store keeps: empty values mean "no such label", and secrets stay out. Throws INVALID_ARGUMENT when one is
 * too long.
 */
export function checkedLabels(labels: Labels): Labels {
  const kept = new Map<string, string>();
  for (const [key, value] of labels) {
    if (value === '' || key === SECRET_LABEL) continue;
    const bytes = Buffer.byteLength(key) + Buffer.byteLength(value);
    if (bytes > MAX_LABEL_BYTES) {
      const shown = JSON.stringify(key.slice(0, 64));
      throw new ShoalError('INVALID_ARGUMENT', `label ${shown} has ${bytes} bytes, allowed are ${MAX_LABEL_BYTES}`);
    }
    kept.set(key, value);
  }
  return kept;
}

/** The name itself; throws INVALID_ARGUMENT when it is empty or longer than MAX_NAME_BYTES. `what` names it in the error. */
export function checkedName(name: string, what: string): string {
  if (name === '') throw new ShoalError('INVALID_ARGUMENT', `${what} is empty`);
  if (Buffer.byteLength(name) > MAX_NAME_BYTES) {
    throw new ShoalError('INVALID_ARGUMENT', `${what} is longer than ${MAX_NAME_BYTES} bytes`);
  }
  return name;
}

/**
 * A wall clock with microseconds. Date.now() has whole milliseconds, so a snapshot would seem to be older than the
 * call that made it; the monotonic clock fills in the rest, held within the millisecond that Date.now() names.
 */
export function fineClock(): () => Timestamp {
  let offsetMs = performance.timeOrigin;
  return () => {
    const wallMs = Date.now();
    const monotonicMs = performance.now();
    if (monotonicMs + offsetMs < wallMs) offsetMs = wallMs - monotonicMs;
    else if (monotonicMs + offsetMs >= wallMs + 1) offsetMs = wallMs + 0.999 - monotonicMs;
    const micros = Math.min(999, Math.max(0, Math.floor((monotonicMs + offsetMs - wallMs) * 1000)));
    return { seconds: Math.floor(wallMs / 1000), nanos: (wallMs % 1000) * 1_000_000 + micros * 1000 };
  };
}
