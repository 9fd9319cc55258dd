/** Starts a fanotify trap in the run directory given and exits with code 3 without closing it, as a failing daemon may. */
import { systemClock } from '../../src/clock.ts';
import { silentLogger } from '../../src/log.ts';
import { createFanotifyTrap } from '../../src/trap/fanotify/fanotify-trap.ts';

const init = { runDir: process.argv[2] as string, onFatal() {} };
const trap = await createFanotifyTrap({ log: silentLogger, clock: systemClock }, init);
await trap.start();
process.exit(3);
