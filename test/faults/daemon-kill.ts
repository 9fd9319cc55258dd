/**
 * Kills the real daemon at random instants while 64 readers are in cold reads of an image that `shoal mount` mounted,
 * starts it again, and counts what readers saw. `node test/faults/daemon-kill.ts --kills 200` prints the counts; exit
 * code 1 when a byte was wrong, a read failed, or a bit on disk lied.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startDaemon } from '../lab/process.ts';
import { type LabShoal, SHOAL_MAIN } from '../lab/shoal.ts';
import type { ReaderReport } from './compare-reader.ts';
import { addReports, type FaultLab, verifyRoot, withFaultLab } from './daemon-lab.ts';

/** What happened over all rounds. */
export interface DaemonKillReport extends ReaderReport {
  kills: number;
  rounds: number;
  /** Kills that hit a daemon which did not answer yet. */
  early: number;
  /** Cold reads that restarted daemons found waiting in the journal, and those whose readers had to ask again. */
  recovered: number;
  askedAgain: number;
  /** Chunks that were on disk at the ends of rounds, and those that were not what their bits said. */
  checked: number;
  dropped: number;
  slowestStartMs: number;
}

/** A root stays cold about this long: then the next round begins with an empty one. */
const KILLS_PER_ROUND = 10;
const LIFE_MS = 2_000;
/** So slow that ten lives do not see the end of the image. */
const BYTES_PER_SECOND = 6 * 1024 * 1024;
const PROCESSES = 8;
const LOOPS = 8;

/** Needs root and a kernel with pre-content events; takes about two seconds per kill. */
export async function killRealDaemon(kills: number): Promise<DaemonKillReport> {
  return await withFaultLab({ bytesPerSecond: BYTES_PER_SECOND }, async (lab) => {
    const report: DaemonKillReport = {
      kills: 0,
      rounds: 0,
      reads: 0,
      bytes: 0,
      wrong: 0,
      firstWrong: null,
      errors: {},
      longestMs: 0,
      early: 0,
      recovered: 0,
      askedAgain: 0,
      checked: 0,
      dropped: 0,
      slowestStartMs: 0,
    };
    while (report.kills < kills) {
      await round(lab, Math.min(KILLS_PER_ROUND, kills - report.kills), report);
      report.rounds += 1;
    }
    return report;
  });
}

async function round(lab: FaultLab, kills: number, report: DaemonKillReport): Promise<void> {
  let shoal = await lab.start({ config: '[trap]\nkind = "fanotify"\n' });
  const mountpoint = await lab.mount('image');
  const readers = await lab.read(mountpoint, { processes: PROCESSES, loops: LOOPS });
  for (let kill = 0; kill < kills; kill += 1) {
    await sleep(Math.random() * LIFE_MS);
    if (!(await killed(shoal))) report.early += 1;
    report.kills += 1;
    await writeFile('/proc/sys/vm/drop_caches', '1');
    const startedAt = performance.now();
    if (kill + 1 < kills && Math.random() < 0.3) {
      shoal = unready(shoal);
      continue;
    }
    shoal = await lab.start({ config: '[trap]\nkind = "fanotify"\n' });
    report.slowestStartMs = Math.max(report.slowestStartMs, Math.round(performance.now() - startedAt));
  }
  await sleep(1_000);
  Object.assign(report, addReports(report, await readers.stop()));
  await takeStock(lab, shoal, mountpoint, report);
}

/** True when it answered before it was killed. */
async function killed(shoal: LabShoal): Promise<boolean> {
  const answered = await shoal.get('/v1/health').then(
    () => true,
    () => false,
  );
  shoal.daemon.child.kill('SIGKILL');
  await shoal.daemon.exited;
  return answered;
}

/** Starts the daemon and does not wait for it, so that the next kill may come before it serves. */
function unready(before: LabShoal): LabShoal {
  const flags = ['--config', join(before.dir, 'config.toml'), '--root', before.root];
  const sockets = ['--socket', before.socket, '--control', before.control];
  const daemon = startDaemon(process.execPath, [SHOAL_MAIN, 'serve', ...flags, ...sockets], {
    logPath: before.daemon.logPath,
  });
  return { ...before, daemon, stop: (signal) => daemon.stop(signal, 30_000) };
}

async function takeStock(lab: FaultLab, shoal: LabShoal, mountpoint: string, report: DaemonKillReport): Promise<void> {
  const umount = await lab.shoal('umount', mountpoint);
  if (umount.status !== 0) throw new Error(`shoal umount: ${umount.stderr}`);
  const code = await shoal.stop();
  if (code !== 0)
    throw new Error(`shoal ended with ${code}; ${(await readFile(shoal.daemon.logPath, 'utf8')).slice(-2000)}`);
  const { checked, dropped } = await verifyRoot(shoal.root);
  report.checked += checked;
  report.dropped += dropped;
  const log = await readFile(shoal.daemon.logPath, 'utf8');
  for (const [, waiting, again] of log.matchAll(
    /took over the fanotify group.* waiting=(\d+)(?: asked_again=(\d+))?/g,
  )) {
    report.recovered += Number(waiting);
    report.askedAgain += Number(again ?? 0);
  }
  await rm(shoal.daemon.logPath);
  await rm(shoal.root, { recursive: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({ options: { kills: { type: 'string', default: '200' } } });
  const report = await killRealDaemon(Number(values.kills));
  console.log(JSON.stringify(report, null, 1));
  const clean = report.wrong === 0 && report.dropped === 0 && Object.keys(report.errors).length === 0;
  process.exitCode = clean ? 0 : 1;
}
