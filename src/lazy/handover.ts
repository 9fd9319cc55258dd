import { systemClock } from '../clock.ts';
import type { Logger } from '../log.ts';
import type { FaultLoop } from '../trap/fault-loop.ts';
import type { KernelTrap } from '../trap/trap.ts';
import type { LazyRuns } from './runs.ts';

/** Grace for readers that were answered with an error to let go of their file system at shutdown. */
const LET_GO_MS = 8_000;

/** When the start fails: readers that a former daemon left waiting go on waiting, for one that starts. */
export async function leaveAsFound({ trap, runs }: { trap: KernelTrap; runs: LazyRuns }): Promise<void> {
  if (runs.blobsInUse().size > 0) await trap.abandon();
  else await trap.close();
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
}
