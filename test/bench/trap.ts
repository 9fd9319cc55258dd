/**
 * What the traps cost, against no trap at all, in one run: `node test/bench/trap.ts [MiB]` (root). Figures are ratios
 * against the same image without a mark, and against the file on the host file system.
 */
import { copyFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemClock } from '../../src/clock.ts';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { silentLogger } from '../../src/log.ts';
import { createFanotifyTrap } from '../../src/trap/fanotify/fanotify-trap.ts';
import { createFaultLoop } from '../../src/trap/fault-loop.ts';
import { createFuseTrap } from '../../src/trap/fuse/fuse-trap.ts';
import type { KernelTrap } from '../../src/trap/trap.ts';
import { type LabImage, labDirectory, makeImage, mountImage, openDevice, run, unmount } from '../trap/erofs-lab.ts';
import { patternBytes } from '../trap/pattern.ts';

const READER = fileURLToPath(new URL('../trap/reader.ts', import.meta.url));
const RANDOM_READS = 2000;
const ROUNDS = 3;

interface Row {
  readonly path: string;
  randomMicros: number;
  warmMBs: number;
  coldMBs: number;
}

const sizeMiB = Number(process.argv[2] ?? 192);
const home = labDirectory();
const image = await makeImage(home.path, new Map([['f0', patternBytes(1, 0, sizeMiB * 1024 * 1024)]]));
const fatal = (error: Error): never => {
  throw error;
};

const rows: Row[] = [await measureHost(), await measurePlain()];
rows.push(
  await measureTrap('fanotify', (runDir) =>
    createFanotifyTrap({ log: silentLogger, clock: systemClock }, { runDir, onFatal: fatal }),
  ),
);
rows.push(await measureTrap('fuse', (runDir) => createFuseTrap({ log: silentLogger }, { runDir })));
const plain = rows[1] as Row;
console.log(
  `${sizeMiB} MiB file, ${RANDOM_READS} random 4 KiB preads, medians of ${ROUNDS} rounds, each with the EROFS pages dropped and the device's in memory`,
);
console.log('path            random p50 µs   added µs   warm MB/s   cold MB/s');
for (const { path, randomMicros, warmMBs, coldMBs } of rows) {
  const cells = [randomMicros.toFixed(1).padStart(13), (randomMicros - plain.randomMicros).toFixed(1).padStart(10)];
  console.log(
    path.padEnd(15),
    ...cells,
    warmMBs.toFixed(0).padStart(11),
    (Number.isNaN(coldMBs) ? '-' : coldMBs.toFixed(0)).padStart(11),
  );
}
home.remove();

async function measureHost(): Promise<Row> {
  const file = join(image.source, 'f0');
  return { path: 'host, cached', ...(await warmFigures(file, [])), coldMBs: Number.NaN };
}

async function measurePlain(): Promise<Row> {
  const device = join(home.path, 'device.plain');
  copyFileSync(join(home.path, 'device.whole'), device);
  const at = join(home.path, 'plain');
  await mountImage(image.meta, device, at);
  const row = { path: 'EROFS, no trap', ...(await warmFigures(join(at, 'f0'), [join(at, 'f0')])), coldMBs: Number.NaN };
  await unmount(at);
  return row;
}

async function measureTrap(kind: string, make: (runDir: string) => Promise<KernelTrap>): Promise<Row> {
  const trap = await make(join(home.path, 'run'));
  const size = Math.ceil(image.data.length / BLOCK_BYTES) * BLOCK_BYTES;
  const device = openDevice({ id: 1, name: 'b'.repeat(64), path: join(home.path, `device.${kind}`), size });
  const path = await trap.attach(device);
  await trap.start();
  const fill = filler(image, device);
  const loop = createFaultLoop({ trap, log: silentLogger, clock: systemClock, device: () => ({ name: kind, fill }) });
  const at = join(home.path, kind);
  await mountImage(image.meta, path, at);
  const file = join(at, 'f0');
  // the FUSE file has pages of its own between EROFS and the device
  const pages = trap.kind === 'fuse' ? [file, path] : [file];
  const coldMBs = await sequential(file, pages);
  const row = { path: `EROFS, ${kind}`, coldMBs, ...(await warmFigures(file, pages)) };
  await unmount(at);
  await trap.close();
  await loop.done;
  device.close();
  return row;
}

/** Copies 1 MiB pieces from memory: a source that costs next to nothing. */
function filler(image: LabImage, device: ReturnType<typeof openDevice>) {
  const piece = 1024 * 1024;
  return async (offset: number, length: number): Promise<void> => {
    const start = offset - (offset % piece);
    const end = Math.min(Math.ceil((offset + length) / piece) * piece, device.size);
    if (device.presence.hasRange(offset / BLOCK_BYTES, (offset + length) / BLOCK_BYTES)) return;
    writeSync(device.fd, image.data, start, Math.min(end, image.data.length) - start, start);
    device.presence.setRange(start / BLOCK_BYTES, end / BLOCK_BYTES);
  };
}

async function warmFigures(file: string, pages: readonly string[]): Promise<Pick<Row, 'randomMicros' | 'warmMBs'>> {
  const [micros, rates]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    await forget(pages);
    const { out } = await run(process.execPath, [READER, 'time', file, String(RANDOM_READS), String(round + 1)]);
    micros.push((JSON.parse(out.toString()) as { p50: number }).p50);
    rates.push(await sequential(file, pages));
  }
  return { randomMicros: median(micros), warmMBs: median(rates) };
}

/** Drops the pages of `files`; those of the device below them stay, so that no disk is measured. */
async function forget(files: readonly string[]): Promise<void> {
  for (const file of files) await run('dd', [`if=${file}`, 'iflag=nocache', 'count=0']);
}

/** MB/s of `dd bs=1M`. */
async function sequential(file: string, pages: readonly string[]): Promise<number> {
  await forget(pages);
  const { err } = await run('dd', [`if=${file}`, 'of=/dev/null', 'bs=1M']);
  const seconds = Number(/copied, ([\d.]+(?:e-\d+)?) s/.exec(err)?.[1]);
  return (sizeMiB * 1024 * 1024) / 1e6 / seconds;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;
}
