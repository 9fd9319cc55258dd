import { nearest } from '../config-text.ts';
import { ShoalError } from '../errors.ts';
import { parseInvocation, type Surroundings } from './command.ts';
import { COMMANDS } from './commands.ts';
import { EXIT, exitCodeOf, UsageError } from './exit-code.ts';
import { commandHelp, overview } from './help.ts';
import { printable } from './output.ts';

/** Runs the command that `argv` (without program names) asks for; the number is the exit code. Never throws. */
export async function runCli(argv: readonly string[], around: Surroundings): Promise<number> {
  try {
    return await dispatch(argv, around);
  } catch (error) {
    if (around.signal.aborted && error === around.signal.reason) return EXIT.interrupted;
    const message = error instanceof ShoalError ? error.describe() : oneLine(error);
    around.io.err(`shoal: ${printable(message)}\n`);
    if (error instanceof UsageError)
      around.io.err(`type: shoal help${error.hint === undefined ? '' : ` ${error.hint}`}\n`);
    return exitCodeOf(error);
  }
}

async function dispatch(argv: readonly string[], around: Surroundings): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined) {
    around.io.err(await overview());
    return EXIT.usage;
  }
  if (first === 'help' && rest[0] !== undefined) {
    around.io.out(commandHelp(await loadCommand(rest[0])));
    return EXIT.ok;
  }
  if (first === 'help' || first === '--help' || first === '-h') {
    around.io.out(await overview());
    return EXIT.ok;
  }
  const command = await loadCommand(first === '--version' ? 'version' : first);
  const { help, invocation } = parseInvocation(command, rest, around);
  if (help) {
    around.io.out(commandHelp(command));
    return EXIT.ok;
  }
  return await command.run(invocation);
}

async function loadCommand(name: string) {
  const load = COMMANDS.get(name);
  if (load !== undefined) return await load();
  if (name.startsWith('-')) throw new UsageError(`options come after the command: shoal COMMAND ${name}`);
  const meant = nearest(name, [...COMMANDS.keys(), 'help']);
  throw new UsageError(`unknown command ${name}${meant === undefined ? '' : `; did you mean ${meant}?`}`);
}

function oneLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll('\n', ' ');
}
