/** Severity of a log line, least to most. */
export type LogLevel = 'debug' | 'info' | 'warn' | 'error';

/** Facts attached to a line: image, blob, peer … Values are printed as they are, so never a credential. */
export type LogFields = Readonly<Record<string, string | number | boolean | undefined>>;

/** Structured logging: a message that an operator can act on, and the facts that name what it is about. */
export interface Logger {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

const RANK: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** A logger that writes one line per entry: `time level message key=value …`, or JSON when `json` is set. */
export function createLogger(init: { level: LogLevel; json?: boolean; write?: (line: string) => void }): Logger {
  const write = init.write ?? ((line: string): void => void process.stderr.write(line));
  const at = (level: LogLevel) => {
    return (message: string, fields: LogFields = {}): void => {
      if (RANK[level] < RANK[init.level]) return;
      const time = new Date().toISOString();
      write(init.json === true ? jsonLine(time, level, message, fields) : plainLine(time, level, message, fields));
    };
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** Discards everything; for tests and for commands that print for people. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

function jsonLine(time: string, level: LogLevel, message: string, fields: LogFields): string {
  return `${JSON.stringify({ time, level, message, ...fields })}\n`;
}

function plainLine(time: string, level: LogLevel, message: string, fields: LogFields): string {
  const facts = Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${plainValue(String(value))}`);
  return `${time} ${level.padEnd(5)} ${message}${facts.join('')}\n`;
}

// Values come from registries and clients: none may end its line, or tell the terminal what to do.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

function plainValue(text: string): string {
  const escaped = (char: string): string => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return /[\s"=]/.test(text) || text.search(CONTROL) >= 0 ? JSON.stringify(text).replace(CONTROL, escaped) : text;
}
