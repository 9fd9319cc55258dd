import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Rows [first, end) of a chunk table. */
export interface RowRun {
  readonly first: number;
  readonly end: number;
}

/** In which order a layer's first start needed its chunks: recorded once, kept with the layer. */
export interface DemandOrder {
  /** What an earlier start needed, first to last; empty until one was recorded. */
  readonly recorded: readonly RowRun[];
  /** Readers wait for these rows, or will: those that lie ahead of a sequential reader count too. */
  note(first: number, end: number): void;
  /** Saves what was noted. */
  close(): Promise<void>;
}

/** Runs kept: a start reads some hundred; 32 KiB on disk. */
const MOST_RUNS = 4_096;
/** From the first read on, ms: slow starts are covered, the work that follows a start is not recorded. */
const RECORD_MS = 60_000;

/** `recorded` is what the layer has; without any, what is noted from now on is handed to `save`, once. */
export function createDemandOrder(
  components: { log: Logger; save: (payload: Uint8Array) => Promise<void> },
  init: { name: string; recorded?: readonly RowRun[] | undefined; recordMs?: number },
): DemandOrder {
  const { recorded, recordMs = RECORD_MS } = init;
  const runs: { first: number; end: number }[] = [];
  /** A row is asked for again while it is on its way. */
  const seen = new Set<number>();
  let isOver = recorded !== undefined;
  let timer: NodeJS.Timeout | undefined;
  let saving = Promise.resolve();

  function finish(): Promise<void> {
    clearTimeout(timer);
    if (!isOver && runs.length > 0) {
      saving = components.save(encodeOrder(runs)).catch((error) => {
        components.log.warn('cannot keep the order of a start', { layer: init.name, error: String(error) });
      });
    }
    isOver = true;
    seen.clear();
    return saving;
  }

  return {
    recorded: recorded ?? [],
    note(first, end) {
      if (isOver || end <= first) return;
      if (runs.length === 0) {
        timer = setTimeout(() => void finish(), recordMs);
        timer.unref();
      }
      for (let row = first; row < end && runs.length < MOST_RUNS; row += 1) {
        if (seen.has(row)) continue;
        seen.add(row);
        const last = runs.at(-1);
        if (last?.end === row) last.end += 1;
        else runs.push({ first: row, end: row + 1 });
      }
      if (runs.length === MOST_RUNS) void finish();
    },
    close: finish,
  };
}

/** Pairs of u32, little-endian: first row, number of rows. */
export function encodeOrder(runs: readonly RowRun[]): Uint8Array {
  const bytes = new Uint8Array(8 * runs.length);
  const view = new DataView(bytes.buffer);
  for (const [index, { first, end }] of runs.entries()) {
    view.setUint32(8 * index, first, true);
    view.setUint32(8 * index + 4, end - first, true);
  }
  return bytes;
}

/** The runs of an order for a table of `rows` rows. Throws STATE_CORRUPT for what `encodeOrder` cannot have made. */
export function decodeOrder(bytes: Uint8Array, rows: number): RowRun[] {
  const bad = (why: string): ShoalError => new ShoalError('STATE_CORRUPT', `an order of reads ${why}`);
  if (bytes.byteLength % 8 !== 0 || bytes.byteLength > 8 * MOST_RUNS) throw bad(`has ${bytes.byteLength} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 8 }, (_, index) => {
    const first = view.getUint32(8 * index, true);
    const end = first + view.getUint32(8 * index + 4, true);
    if (end <= first || end > rows) throw bad(`names rows ${first} to ${end} of ${rows}`);
    return { first, end };
  });
}
