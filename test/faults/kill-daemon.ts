/**
 * Kills the mini daemon at random instants while 64 readers are in cold reads, starts it again, and counts what readers
 * saw. `node test/faults/kill-daemon.ts [fanotify|fuse] [kills]` prints the counts; exit code 1 when a byte was wrong.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { labDirectory, makeImage, mountImage, unmount } from '../trap/erofs-lab.ts';
import { patternBytes } from '../trap/pattern.ts';
import { dropPageCache } from '../trap/trap-lab.ts';

const DAEMON = fileURLToPath(new URL('./mini-daemon.ts', import.meta.url));
const READER = fileURLToPath(new URL('../trap/reader.ts', import.meta.url));
const FILE_BYTES = 48 * 1024 * 1024;
const PROCESSES = 4;
const READERS_EACH = 16;
/** From the start of one life to its end: a life serves after about a second, so some end before that. */
const LIFE_MS = 2500;
const DROP_CACHES_MS = 150;

/** What happened. */
export interface KillReport {
  kills: number;
  /** Reads that returned bytes, all verified. */
  reads: number;
  wrong: number;
  errors: number;
  /** Kills that hit a daemon before it served. */
  early: number;
  /** Cold reads that a restarted daemon found waiting in the journal. */
  recovered: number;
  /** Longest single read, ms. */
  longestMs: number;
  /** Start of a process to "serving", slowest, ms. */
  slowestStartMs: number;
}

interface Life {
  readonly child: ChildProcess;
  readonly ready: Promise<{ path: string; waiting: number } | undefined>;
}

/** Runs `kills` rounds for one trap. Needs root; takes about a second per kill. */
export async function killDaemon(kind: 'fanotify' | 'fuse', kills: number): Promise<KillReport> {
  const home = labDirectory();
  const mountpoint = join(home.path, 'mnt');
  const report: KillReport = {
    kills,
    reads: 0,
    wrong: 0,
    errors: 0,
    early: 0,
    recovered: 0,
    longestMs: 0,
    slowestStartMs: 0,
  };
  const image = await makeImage(home.path, new Map([['f0', patternBytes(1, 0, FILE_BYTES)]]));
  let life = begin(kind, home.path);
  const first = await life.ready;
  if (first === undefined) throw new Error('the daemon did not start');
  await mountImage(image.meta, first.path, mountpoint);
  const readers = Array.from({ length: PROCESSES }, (_, index) => startReader(join(mountpoint, 'f0'), index + 1));
  await Promise.all(readers.map(({ reading }) => reading));
  const dropping = setInterval(() => void dropPageCache().catch(() => {}), DROP_CACHES_MS);
  for (let kill = 0; kill < kills; kill += 1) {
    await delay(Math.random() * LIFE_MS);
    life.child.kill('SIGKILL');
    await life.ready.then((ready) => {
      if (ready === undefined) report.early += 1;
    });
    const startedAt = performance.now();
    life = begin(kind, home.path);
    const next = life;
    void next.ready.then((ready) => {
      if (ready === undefined) return;
      report.recovered += ready.waiting;
      report.slowestStartMs = Math.max(report.slowestStartMs, Math.round(performance.now() - startedAt));
    });
    // a FUSE mount dies with its daemon: the restarted one mounts anew
    if (kind === 'fuse') await remount(next, image.meta, mountpoint);
  }
  await life.ready;
  await delay(500);
  clearInterval(dropping);
  for (const { child } of readers) child.kill('SIGTERM');
  for (const { done } of readers) {
    const found = await done;
    report.reads += found.reads;
    report.wrong += found.wrong;
    report.errors += found.errors;
    report.longestMs = Math.max(report.longestMs, found.longestMs);
  }
  await unmount(mountpoint);
  life.child.kill('SIGTERM');
  await once(life.child, 'exit');
  await unmount(mountpoint, { lazy: true });
  home.remove();
  return report;
}

function begin(kind: string, home: string): Life {
  const child = spawn(process.execPath, [DAEMON, kind, home], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ready = Promise.withResolvers<{ path: string; waiting: number } | undefined>();
  createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) =>
    ready.resolve(JSON.parse(line)),
  );
  child.on('exit', () => ready.resolve(undefined));
  return { child, ready: ready.promise };
}

async function remount(life: Life, meta: string, mountpoint: string): Promise<void> {
  const ready = await life.ready;
  await unmount(mountpoint, { lazy: true });
  if (ready !== undefined) await mountImage(meta, ready.path, mountpoint);
}

function startReader(file: string, salt: number) {
  const child = spawn(process.execPath, [READER, 'watch', file, '1', String(salt), String(READERS_EACH)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, UV_THREADPOOL_SIZE: String(READERS_EACH) },
  });
  const reading = Promise.withResolvers<void>();
  const done = Promise.withResolvers<{ reads: number; wrong: number; errors: number; longestMs: number }>();
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (line === 'reading') reading.resolve();
    else done.resolve(JSON.parse(line));
  });
  child.on('exit', (code) => done.reject(new Error(`a reader ended with ${code}`)));
  done.promise.catch(() => {});
  return { child, reading: reading.promise, done: done.promise };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [kind = 'fanotify', kills = '200'] = process.argv.slice(2);
  const report = await killDaemon(kind === 'fuse' ? 'fuse' : 'fanotify', Number(kills));
  console.log(JSON.stringify({ kind, ...report }));
  process.exitCode = report.wrong === 0 && (kind === 'fuse' || report.errors === 0) ? 0 : 1;
}
