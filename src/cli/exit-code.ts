import { ShoalError } from '../errors.ts';

/** What shoal's exit codes mean (numbers from sysexits.h where it has one). */
export const EXIT = {
  ok: 0,
  /** The command did not do what it was asked, or `doctor` found something that does not work. */
  failure: 1,
  /** The command line makes no sense. */
  usage: 2,
  /** No daemon answers on the control socket. */
  unavailable: 69,
  /** The configuration is not valid. */
  config: 78,
  /** Ended by SIGINT. */
  interrupted: 130,
} as const;

/** What each code means, for the help and docs/cli.md. */
export const EXIT_MEANING: readonly (readonly [number, string])[] = [
  [EXIT.ok, 'done'],
  [EXIT.failure, 'it failed; the line on standard error says why'],
  [EXIT.usage, 'the command line is wrong'],
  [EXIT.unavailable, 'no daemon answers on the control socket'],
  [EXIT.config, 'the configuration is not valid'],
  [EXIT.interrupted, 'interrupted'],
];

/** The command line makes no sense; `hint` is the command whose help tells more. */
export class UsageError extends Error {
  readonly hint: string | undefined;

  constructor(message: string, hint?: string) {
    super(message);
    this.hint = hint;
  }
}

/** The exit code an error stands for. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof UsageError) return EXIT.usage;
  if (!(error instanceof ShoalError)) return EXIT.failure;
  if (error.code === 'CONFIG_INVALID') return EXIT.config;
  return error.code === 'UNAVAILABLE' ? EXIT.unavailable : EXIT.failure;
}
