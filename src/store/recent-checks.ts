import { fstatSync } from 'node:fs';
import type { Clock } from '../clock.ts';

/** Which rows of a device file were hashed a moment ago, the file being the same since. */
export interface RecentChecks {
  /** State of the file now, for `note`. */
  stamp(): bigint;
  /** The row was read after `stamp` was taken and its hash was right. */
  note(row: number, stamp: bigint): void;
  /** Whether the row's hash was right a moment ago and nobody has written to the file since. */
  has(row: number, stamp: bigint): boolean;
}

/**
 * How long a hash stands for the bytes, in ms: one roll-out. A disk that rots meanwhile is found by who receives the
 * bytes.
 */
const CHECKED_FOR_MS = 5 * 60_000;
/** About 3 MB; beyond it all are forgotten and hashed once more. */
const MOST_ROWS = 65_536;

/**
 * The file's change time (statx(2) `stx_ctime`) tells of writes, with the kernel's grain: fine since Linux 6.13, a timer
 * tick of at most 10 ms before.
 */
export function createRecentChecks({ clock }: { clock: Pick<Clock, 'nowMs'> }, { fd }: { fd: number }): RecentChecks {
  const checkedAt = new Map<number, number>();
  let current = 0n;
  return {
    stamp: () => fstatSync(fd, { bigint: true }).ctimeNs,
    note(row, stamp) {
      if (stamp !== current || checkedAt.size >= MOST_ROWS) checkedAt.clear();
      current = stamp;
      checkedAt.set(row, clock.nowMs());
    },
    has(row, stamp) {
      const at = stamp === current ? checkedAt.get(row) : undefined;
      return at !== undefined && clock.nowMs() - at < CHECKED_FOR_MS;
    },
  };
}
