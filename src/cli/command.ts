import { parseArgs } from 'node:util';
import { type Config, type ConfigFlags, loadConfig } from '../config.ts';
import { UsageError } from './exit-code.ts';
import type { Io } from './output.ts';

/** One option of a command, without its dashes. */
export interface CommandOption {
  readonly type: 'string' | 'boolean';
  readonly short?: string;
  /** What the value is, for the help: `PATH`. */
  readonly value?: string;
  /** May be given several times; then its value is an array. */
  readonly multiple?: true;
  readonly description: string;
}

/** A command of shoal: one file in this folder each. */
export interface Command {
  readonly name: string;
  /** Arguments after the name, as the help shows them: `REF DIR`. */
  readonly args: string;
  /** How many arguments it takes. */
  readonly argCount: { readonly min: number; readonly max: number };
  /** One line for the list of commands. */
  readonly summary: string;
  /** A few lines for its own help. */
  readonly description: string;
  readonly options: Readonly<Record<string, CommandOption>>;
  /** Does it; the number is the exit code. Throws UsageError and ShoalError. */
  run(invocation: Invocation): Promise<number>;
}

/** What a command is called with. */
export interface Invocation {
  readonly args: readonly string[];
  readonly options: Readonly<Record<string, string | boolean | readonly string[] | undefined>>;
  readonly io: Io;
  /** Aborted by SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The effective configuration: file, then flags. Throws CONFIG_INVALID. */
  config(): Config;
}

/** Options every command takes: where the configuration is, and the keys that flags override. */
export const COMMON_OPTIONS = {
  config: { type: 'string', value: 'PATH', description: 'configuration file (default /etc/shoal/config.toml)' },
  root: { type: 'string', value: 'PATH', description: 'folder of all state (key root)' },
  socket: { type: 'string', value: 'PATH', description: 'socket for containerd (key snapshotter.socket)' },
  control: { type: 'string', value: 'PATH', description: 'socket for this command line (key control.socket)' },
  trap: { type: 'string', value: 'KIND', description: 'auto, fanotify or fuse (key trap.kind)' },
  'log-level': { type: 'string', value: 'LEVEL', description: 'debug, info, warn or error (key log.level)' },
  help: { type: 'boolean', short: 'h', description: 'this help' },
} as const satisfies Record<string, CommandOption>;

/** What stays the same for every command of one process. */
export type Surroundings = Pick<Invocation, 'io' | 'signal' | 'env'>;

/** Parses the words after the command's name. Throws UsageError; `help` is true when `--help` is among them. */
export function parseInvocation(
  command: Command,
  words: readonly string[],
  around: Surroundings,
): { help: boolean; invocation: Invocation } {
  const options = { ...COMMON_OPTIONS, ...command.options };
  const { values, positionals } = parseWords(command, words, options);
  const { min, max } = command.argCount;
  const help = values.help === true;
  if (!help && (positionals.length < min || positionals.length > max)) {
    const usage = `shoal ${command.name} ${command.args}`.trimEnd();
    throw new UsageError(
      `${positionals.length < min ? 'an argument is missing' : 'too many arguments'}: ${usage}`,
      command.name,
    );
  }
  const invocation: Invocation = {
    ...around,
    args: positionals,
    options: values,
    config: () => loadConfig({ path: text(values.config), flags: configFlags(values), env: around.env }),
  };
  return { help, invocation };
}

function parseWords(command: Command, words: readonly string[], options: Readonly<Record<string, CommandOption>>) {
  const specification: Record<string, { type: 'string' | 'boolean'; short?: string; multiple: boolean }> = {};
  for (const [name, { type, short, multiple = false }] of Object.entries(options)) {
    specification[name] = { type, multiple, ...(short === undefined ? {} : { short }) };
  }
  try {
    const parsed = parseArgs({ args: [...words], options: specification, allowPositionals: true, strict: true });
    // Only options of type string are given several times.
    return parsed as { values: Invocation['options']; positionals: string[] };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new UsageError((reason.split('. ')[0] as string).replace(/\.$/, ''), command.name);
  }
}

function configFlags(values: Readonly<Record<string, unknown>>): ConfigFlags {
  const flags: Record<string, string> = {};
  for (const name of ['root', 'socket', 'control', 'trap', 'log-level']) {
    const value = text(values[name]);
    if (value !== undefined) flags[name] = value;
  }
  return flags;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}
