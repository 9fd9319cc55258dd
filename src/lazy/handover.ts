import { systemClock } from '../clock.ts';
import type { Logger } from '../log.ts';
import { findLeftovers } from '../mount/recover.ts';
import type { FaultLoop } from '../trap/fault-loop.ts';
import { dropCaches } from '../trap/page-cache.ts';
import type { KernelTrap } from '../trap/trap.ts';
import type { LazyRuns } from './runs.ts';

/** Grace for readers that were answered with an error to let go of their file system at shutdown. */
const LET_GO_MS = 8_000;

/**
 * Adopts mounts whose readers the trap still holds back, takes away those that nobody can serve any more, and starts the
 * trap.
 */
export async function takeOver(root: string, parts: { trap: KernelTrap; runs: LazyRuns; log: Logger }): Promise<void> {
  const { trap, runs, log } = parts;
  if (trap.kind === 'fuse') {
    await runs.discardFormer();
    await trap.start();
    return;
  }
  const { adopted, refused } = await runs.adopt();
  if (adopted > 0) log.info('took over the mounts of a former daemon', { runs: adopted, waiting: trap.recovered });
  if (trap.lost && (adopted > 0 || findLeftovers(root).length > 0)) {
    // Between the loss of the trap and this moment readers may have been given holes that now sit in the page cache.
    log.error(
      'the keeper of a former daemon is gone: reads meanwhile may have seen zeros; restart containers of lazy images',
    );
    await dropCaches();
  }
  await trap.start({ knowsAll: refused === 0 });
}

/** When the start fails: readers that a former daemon left waiting go on waiting, for one that starts. */
export async function leaveAsFound(parts: {
  trap: KernelTrap;
  runs: LazyRuns;
  faults: FaultLoop | undefined;
}): Promise<void> {
  const { trap, runs, faults } = parts;
  if (runs.blobsInUse().size === 0) {
    await trap.close();
    return;
  }
  await trap.abandon();
  faults?.leave();
}

/**
 * The orderly end (design §6): unmount first. Readers of a mount get an error; a file system that containers still use
 * keeps its trap, so that their cold reads wait for the next daemon instead of seeing holes.
 */
export async function stopServing(parts: {
  trap: KernelTrap;
  runs: LazyRuns;
  faults: FaultLoop;
  log: Logger;
}): Promise<void> {
  const { trap, runs, faults, log } = parts;
  const { held } = await runs.unmountAll();
  if (held.length === 0) faults.stop();
  const deadline = performance.now() + LET_GO_MS;
  while (runs.stillAlive().length > held.length && performance.now() < deadline) await systemClock.sleep(20);
  const alive = runs.stillAlive();
  if (alive.length === 0) {
    faults.stop();
    await trap.close();
    await faults.done;
    return;
  }
  log.warn('containers still use lazy images: their cold reads wait until shoal is started again', {
    runs: alive.join(','),
  });
  await trap.abandon();
  faults.leave();
}
