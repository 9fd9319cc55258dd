/**
 * A reader in a process of its own (who serves a lazy mount must never read it). Prints one JSON line.
 *   random <file> <seed> <count> <salt>   4 KiB preads, verified
 *   mmap <file> <seed>                    maps the file and touches every page, verified
 *   time <file> <count> <salt>            4 KiB preads, latencies: {p50, p90} in µs
 *   watch <file> <seed> <salt> <readers>  so many at once read random ranges, verified, until SIGTERM
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import koffi from 'koffi';
import { libcLibrary } from '../../src/kernel/libc.ts';
import { firstDifference } from './pattern.ts';

const PROT_READ = 1;
const MAP_SHARED = 1;
const PAGE = 4096;

const [mode, file, ...rest] = process.argv.slice(2) as [string, string, ...string[]];
const numbers = rest.map(Number) as [number, number, number];
const fd = openSync(file, 'r');
const { size } = fstatSync(fd);
const report =
  mode === 'random'
    ? random(...numbers)
    : mode === 'mmap'
      ? mapped(numbers[0])
      : mode === 'time'
        ? timed(numbers[0], numbers[1])
        : await watch(...numbers);
closeSync(fd);
process.stdout.write(`${JSON.stringify(report)}\n`);

function random(seed: number, count: number, salt: number): object {
  const next = randomNumbers(salt);
  const bytes = Buffer.alloc(PAGE);
  let wrong = 0;
  let errors = 0;
  for (let i = 0; i < count; i += 1) {
    const at = Math.floor(next() * Math.ceil(size / PAGE)) * PAGE;
    try {
      const got = readSync(fd, bytes, 0, PAGE, at);
      if (got !== Math.min(PAGE, size - at) || firstDifference(seed, at, bytes.subarray(0, got)) !== -1) wrong += 1;
    } catch {
      errors += 1;
    }
  }
  return { reads: count, wrong, errors };
}

function mapped(seed: number): object {
  const mmap = libcLibrary().func('mmap', 'void *', ['void *', 'size_t', 'int', 'int', 'int', 'int64_t']);
  const address = mmap(null, size, PROT_READ, MAP_SHARED, fd, 0) as bigint;
  const bytes = new Uint8Array(koffi.view(address, size));
  return { reads: Math.ceil(size / PAGE), wrong: firstDifference(seed, 0, bytes) === -1 ? 0 : 1, errors: 0 };
}

function timed(count: number, salt: number): object {
  const next = randomNumbers(salt);
  const bytes = Buffer.alloc(PAGE);
  const pages = Math.floor(size / PAGE);
  const seen = new Set<number>();
  const micros: number[] = [];
  while (micros.length < count && seen.size < pages) {
    const page = Math.floor(next() * pages);
    if (seen.has(page)) continue;
    seen.add(page);
    const before = process.hrtime.bigint();
    readSync(fd, bytes, 0, PAGE, page * PAGE);
    micros.push(Number(process.hrtime.bigint() - before) / 1000);
  }
  micros.sort((a, b) => a - b);
  const at = (share: number): number => micros[Math.floor(micros.length * share)] as number;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99) };
}

/** Each read opens the file anew: the mount may be another by then. UV_THREADPOOL_SIZE bounds how many really wait. */
async function watch(seed: number, salt: number, readers: number): Promise<object> {
  const found = { reads: 0, wrong: 0, errors: 0, longestMs: 0, wrongAt: [] as number[] };
  let stop = false;
  process.on('SIGTERM', () => {
    stop = true;
  });
  const one = async (next: () => number): Promise<void> => {
    while (!stop) {
      const at = Math.floor(next() * size);
      const length = Math.min(size - at, 1 + Math.floor(next() * 65_536));
      const before = performance.now();
      try {
        const got = await readOnce(at, length);
        found.reads += 1;
        const bad = firstDifference(seed, at, got);
        if (bad !== -1) {
          found.wrong += 1;
          found.wrongAt.push(at + bad);
        } else if (got.length < length) {
          // read(2) gives what lies before a page that failed, and the error at the next call
          found.errors += 1;
        }
      } catch {
        found.errors += 1;
        await delay(20);
      }
      found.longestMs = Math.max(found.longestMs, Math.round(performance.now() - before));
    }
  };
  process.stdout.write('reading\n');
  await Promise.all(Array.from({ length: readers }, (_, index) => one(randomNumbers(salt * 1000 + index))));
  return found;
}

async function readOnce(at: number, length: number): Promise<Buffer> {
  const handle = await open(file, 'r');
  try {
    const bytes = Buffer.alloc(length);
    const { bytesRead } = await handle.read(bytes, 0, length, at);
    return bytes.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** mulberry32: the same salt gives the same reads. */
function randomNumbers(salt: number): () => number {
  let state = salt | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
