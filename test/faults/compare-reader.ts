/**
 * Reads files of a lazy mount in random order and compares every byte with an unpacked copy:
 * `compare-reader.ts <mount> <expected> <list.json> <salt> <loops>`. Prints `reading`, and one JSON line of counts on
 * SIGTERM. A process of its own: never the one that serves the mount.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** What one reader process saw. */
export interface ReaderReport {
  reads: number;
  bytes: number;
  /** Reads that returned bytes other than the image's, and the first of them. */
  wrong: number;
  firstWrong: string | null;
  /** Failed reads by errno. */
  errors: Record<string, number>;
  longestMs: number;
}

/** Longest piece of a file that is read at once. */
const PIECE_BYTES = 256 * 1024;
/** A failed read is followed by a short rest, or a dead mount would be hammered. */
const REST_MS = 20;

const [mount, expected, list, salt, loops] = process.argv.slice(2) as [string, string, string, string, string];
const files = JSON.parse(await readFile(list, 'utf8')) as { path: string; size: number }[];
const pieces = files.flatMap(({ path, size }) =>
  Array.from({ length: Math.ceil(size / PIECE_BYTES) }, (_, index) => ({
    path,
    offset: index * PIECE_BYTES,
    length: Math.min(PIECE_BYTES, size - index * PIECE_BYTES),
  })),
);
const report: ReaderReport = { reads: 0, bytes: 0, wrong: 0, firstWrong: null, errors: {}, longestMs: 0 };
let stopping = false;
process.on('SIGTERM', () => {
  stopping = true;
});

/** A small generator, so that a run can be repeated with its salt. */
let state = Number(salt) * 2_654_435_761;
function random(below: number): number {
  state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) | 0;
  return ((state ^ (state >>> 13)) >>> 0) % below;
}

async function readPiece(root: string, path: string, offset: number, length: number): Promise<Buffer> {
  const file = await open(join(root, path));
  try {
    const bytes = Buffer.alloc(length, 0xa5);
    let filled = 0;
    // a read that meets an error half-way gives what it has; only the next one tells
    while (filled < length) {
      const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

async function loop(): Promise<void> {
  while (!stopping) {
    const { path, offset, length } = pieces[random(pieces.length)] as (typeof pieces)[number];
    const startedAt = performance.now();
    try {
      const got = await readPiece(mount, path, offset, length);
      report.reads += 1;
      report.bytes += got.byteLength;
      const want = await readPiece(expected, path, offset, length);
      if (!got.equals(want)) {
        report.wrong += 1;
        const zeros = got.every((byte) => byte === 0) ? ' (zeros)' : '';
        report.firstWrong ??= `${path} at ${offset}+${length}: got ${got.byteLength} bytes${zeros}`;
      }
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? String(error);
      report.errors[code] = (report.errors[code] ?? 0) + 1;
      await sleep(REST_MS);
    }
    report.longestMs = Math.max(report.longestMs, Math.round(performance.now() - startedAt));
  }
}

const all = Array.from({ length: Number(loops) }, loop);
process.stdout.write('reading\n');
await Promise.all(all);
process.stdout.write(`${JSON.stringify(report)}\n`);
