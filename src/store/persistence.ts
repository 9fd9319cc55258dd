import type { Clock } from '../clock.ts';
import type { BlockMap } from '../core/block-map.ts';
import { backoffMs } from '../core/policy/backoff.ts';
import type { Logger } from '../log.ts';
import { fdatasync } from './file-io.ts';
import type { MapFile } from './map-file.ts';
import { storeIo } from './sealed-file.ts';

/** Makes a device's bits durable behind its data: data written, fdatasync, bits written, fdatasync. */
export interface Persistence {
  /** Row `row` was written (`bytes` of it) and its bits are set in memory. */
  written(row: number, bytes: number): void;
  /** Bits were cleared in memory: both copies on disk must follow. */
  cleared(): void;
  /** Resolves when what is set in memory now is on disk too; false when that failed (it is logged). */
  flush(): Promise<boolean>;
  /** True when nothing waits to be made durable. */
  readonly clean: boolean;
  /** Flushes and ends the background work. */
  close(): Promise<void>;
}

/** What `createPersistence` works on. `limit` runs one flush at a time per store: an fdatasync holds a pool thread. */
export interface PersistenceComponents {
  readonly clock: Clock;
  readonly log: Logger;
  readonly presence: BlockMap;
  readonly mapFile: MapFile;
  readonly limit: <T>(work: () => Promise<T>) => Promise<T>;
  /** Rows whose bits are on disk now. */
  readonly durable: (rows: readonly number[]) => Promise<void>;
  /** Rows whose data the disk refused: they must be forgotten, the page cache may drop them as if they were written. */
  readonly lost: (rows: readonly number[]) => void;
}

/** Longest time a chunk stays volatile, ms: what a crash may cost in refetched chunks. */
const FLUSH_AFTER_MS = 1_000;
/** Most volatile bytes before a flush starts at once: about what a disk takes in that second. */
const FLUSH_AFTER_BYTES = 64 * 1024 * 1024;
/** Longest time between attempts while the disk refuses, ms: it is noticed within a minute that it works again. */
const LONGEST_REST_MS = 60_000;

export function createPersistence(
  components: PersistenceComponents,
  init: {
    dataFd: number;
    mapFd: number;
    name: string;
    flushAfterMs?: number;
    flushAfterBytes?: number;
    sync?: typeof fdatasync;
  },
): Persistence {
  const { clock, log, presence, mapFile, limit } = components;
  const { flushAfterMs = FLUSH_AFTER_MS, flushAfterBytes = FLUSH_AFTER_BYTES, sync = fdatasync } = init;
  let rows: number[] = [];
  let volatileBytes = 0;
  /** Slots that still hold bits which were cleared since. */
  let staleSlots = 0;
  let clears = 0;
  /** Attempts that failed since the last one that did not. */
  let failures = 0;
  let timer: AbortController | undefined;
  let running: Promise<boolean> | undefined;
  let following: Promise<boolean> | undefined;
  let closed = false;

  const dirty = (): boolean => rows.length > 0 || staleSlots > 0;

  function schedule(): void {
    if (volatileBytes >= flushAfterBytes && failures === 0) void flush();
    // After a flush under way the time to the next one is known.
    if (timer !== undefined || running !== undefined || closed) return;
    const mine = new AbortController();
    timer = mine;
    clock.sleep(delayMs(), { signal: mine.signal }).then(
      () => {
        timer = undefined;
        void flush();
      },
      () => {},
    );
  }

  function delayMs(): number {
    if (failures === 0) return flushAfterMs;
    return Math.max(flushAfterMs, backoffMs(failures, { firstMs: FLUSH_AFTER_MS, longestMs: LONGEST_REST_MS }));
  }

  function flush(): Promise<boolean> {
    // A flush under way may have looked too early: one more follows, shared by all who ask meanwhile.
    if (running !== undefined) {
      following ??= running.then(() => {
        following = undefined;
        return dirty() ? flush() : true;
      });
      return following;
    }
    if (!dirty()) return Promise.resolve(true);
    timer?.abort();
    timer = undefined;
    running = limit(attempt).finally(() => {
      running = undefined;
      if (dirty()) schedule();
    });
    return running;
  }

  async function attempt(): Promise<boolean> {
    const done = await flushNow();
    failures = done ? 0 : failures + 1;
    return done;
  }

  async function flushNow(): Promise<boolean> {
    const taken = rows;
    rows = [];
    volatileBytes = 0;
    const bits = presence.bytes.slice();
    const clearsBefore = clears;
    try {
      await sync(init.dataFd);
    } catch (error) {
      // After a failed sync the kernel calls the pages clean: a second sync would succeed without writing them.
      log.error('disk refused layer data, forgetting it', {
        layer: init.name,
        error: storeIo(error, 'fdatasync').message,
      });
      const lost = taken.concat(rows);
      rows = [];
      components.lost(lost);
      return false;
    }
    try {
      await persist(bits, clearsBefore);
      await components.durable(taken);
      return true;
    } catch (error) {
      log.error('cannot persist which chunks are present', { layer: init.name, error: String(error) });
      rows = taken.concat(rows);
      return false;
    }
  }

  async function persist(bits: Uint8Array, clearsBefore: number): Promise<void> {
    if (clears !== clearsBefore) intersect(bits, presence.bytes);
    const stale = clears === clearsBefore ? staleSlots : 0;
    await mapFile.write(bits);
    await sync(init.mapFd);
    if (stale > 1) {
      await mapFile.write(bits);
      await sync(init.mapFd);
    }
    if (stale > 0 && clears === clearsBefore) staleSlots = 0;
  }

  return {
    written(row, bytes) {
      rows.push(row);
      volatileBytes += bytes;
      schedule();
    },
    cleared() {
      clears += 1;
      staleSlots = 2;
      schedule();
    },
    flush,
    get clean() {
      return running === undefined && !dirty();
    },
    async close() {
      closed = true;
      timer?.abort();
      await flush();
    },
  };
}

function intersect(bits: Uint8Array, other: Uint8Array): void {
  for (let index = 0; index < bits.length; index += 1) bits[index] = (bits[index] as number) & (other[index] as number);
}
