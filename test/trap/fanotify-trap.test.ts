import { systemClock } from '../../src/clock.ts';
import { createFanotifyTrap } from '../../src/trap/fanotify/fanotify-trap.ts';
import { trapSuite } from '../suites/trap-suite.ts';

trapSuite('fanotify', ({ log }, { runDir }) => {
  const onFatal = (error: Error): never => {
    throw error;
  };
  return createFanotifyTrap({ log, clock: systemClock }, { runDir, onFatal });
});
