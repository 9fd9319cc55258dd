/**
 * The smallest daemon that serves one lazy device: a trap, a fault loop and a slow source. Killed at random by
 * kill-daemon.ts. `mini-daemon.ts <fanotify|fuse> <home>`; prints one JSON line when it serves; SIGTERM ends it in order.
 * Each life forgets what was filled and punches the device empty again, so that a wrong "allow" always shows zeros.
 */
import { openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemClock } from '../../src/clock.ts';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import { syscallAsync } from '../../src/kernel/libc.ts';
import { createLogger } from '../../src/log.ts';
import { createFanotifyTrap } from '../../src/trap/fanotify/fanotify-trap.ts';
import { createFaultLoop } from '../../src/trap/fault-loop.ts';
import { createFuseTrap } from '../../src/trap/fuse/fuse-trap.ts';
import { openDevice } from '../trap/erofs-lab.ts';

const PUNCH_HOLE_KEEP_SIZE = 3;
/** A reader that the former life let go must have copied its bytes before they are punched out. */
const PUNCH_AFTER_MS = 300;
const MAX_DELAY_MS = 25;

const [kind, home] = process.argv.slice(2) as ['fanotify' | 'fuse', string];
const log = createLogger({ level: 'error' });
const runDir = join(home, 'run');
const content = openSync(join(home, 'device.whole'), 'r');
const size = Math.ceil(statSync(join(home, 'device.whole')).size / BLOCK_BYTES) * BLOCK_BYTES;
const device = openDevice({ id: 1, name: 'd'.repeat(64), path: join(home, 'device'), size });

const onFatal = (error: Error): never => {
  throw error;
};
const trap =
  kind === 'fuse'
    ? await createFuseTrap({ log }, { runDir })
    : await createFanotifyTrap({ log, clock: systemClock }, { runDir, onFatal });
const path = await trap.attach(device);
await trap.start({ knowsAll: true });
const waiting = trap.stats().cold;
await delay(PUNCH_AFTER_MS);
await syscallAsync('fallocate', device.fd, PUNCH_HOLE_KEEP_SIZE, 0, size);
const loop = createFaultLoop({ trap, log, clock: systemClock, device: () => ({ name: device.name, fill }) });
process.on('SIGTERM', () => void end());
process.stdout.write(`${JSON.stringify({ path, waiting, recovered: trap.recovered, lost: trap.lost })}\n`);
setInterval(() => {}, 60_000);

async function fill(offset: number, length: number): Promise<void> {
  await delay(Math.random() * MAX_DELAY_MS);
  const bytes = Buffer.alloc(length);
  readSync(content, bytes, 0, length, offset);
  writeSync(device.fd, bytes, 0, length, offset);
  device.presence.setRange(offset / BLOCK_BYTES, (offset + length) / BLOCK_BYTES);
}

async function end(): Promise<void> {
  loop.stop();
  await trap.close();
  await loop.done;
  process.exit(0);
}
