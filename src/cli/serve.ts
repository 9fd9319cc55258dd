import { createLogger } from '../log.ts';
import { VERSION } from '../version.ts';
import type { Command } from './command.ts';
import { EXIT } from './exit-code.ts';

/** `shoal serve`: the daemon, in the foreground. */
export const serveCommand: Command = {
  name: 'serve',
  args: '',
  argCount: { min: 0, max: 0 },
  summary: 'run the daemon',
  description:
    'Runs the daemon in the foreground until SIGTERM or SIGINT; then it unmounts what it mounted and ends. A second\nsignal ends it at once. Log lines go to standard error.',
  options: {
    'until-unmounted': { type: 'boolean', description: 'end with the last image that shoal mount mounted' },
  },
  async run(invocation) {
    const config = invocation.config();
    const log = createLogger({ level: config.log.level, json: config.log.format === 'json' });
    log.info('starting', { version: VERSION, root: config.root, socket: config.snapshotter.socket });
    const { runDaemon } = await import('../daemon.ts');
    const untilUnmounted = invocation.options['until-unmounted'] === true;
    const daemon = await runDaemon(config, { log }, { untilUnmounted });
    const failure = await Promise.race([aborted(invocation.signal), daemon.ended]);
    log.info('stopping');
    await daemon.stop();
    if (failure !== undefined) throw failure;
    return EXIT.ok;
  },
};

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    else signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
