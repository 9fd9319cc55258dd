/** argv → command. The only place that reads the process's arguments and environment. */
import { processIo } from './cli/output.ts';
import { runCli } from './cli/run.ts';

const stop = new AbortController();
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.on(signal, () => {
    // The second one means now: whatever was being closed is left to the next start.
    if (stop.signal.aborted) process.exit(code);
    stop.abort(new Error(`ended by ${signal}`));
  });
}

process.exitCode = await runCli(process.argv.slice(2), {
  io: processIo(process.env),
  signal: stop.signal,
  env: process.env,
});
