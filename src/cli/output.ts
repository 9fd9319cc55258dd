/** Where a command reads and writes: the process's streams, or a test's strings. */
export interface Io {
  out(text: string): void;
  err(text: string): void;
  /** True when people look at `out`: a terminal. */
  readonly isTty: boolean;
  /** True when `out` may carry colours (a terminal, and NO_COLOR is not set). */
  readonly hasColour: boolean;
}

/** The process's own streams. */
export function processIo(env: Readonly<Record<string, string | undefined>>): Io {
  const { stdout, stderr } = process;
  const isTty = stdout.isTTY === true;
  // A reader that went away (`shoal status | head`) is no error.
  for (const stream of [stdout, stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    isTty,
    hasColour: isTty && (env.NO_COLOR ?? '') === '' && env.TERM !== 'dumb',
  };
}

const COLOUR = { red: 31, green: 32, yellow: 33, dim: 2, bold: 1 } as const;

/** A colour or weight. */
export type Tint = keyof typeof COLOUR;

/** `text` in a colour when the stream carries colours, else as it is. */
export function paint(io: Pick<Io, 'hasColour'>, tint: Tint, text: string): string {
  return io.hasColour ? `\u001b[${COLOUR[tint]}m${text}\u001b[0m` : text;
}

// Terminal text from outside (image names, registry messages) must not carry control sequences.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** `text` with control characters replaced: safe to print. */
export function printable(text: string): string {
  return text.replace(CONTROL, '\u{fffd}');
}

/** Rows as aligned columns two spaces apart, one line each; columns named in `right` are flush right. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, visibleLength(cell));
  }
  const pad = (cell: string, index: number): string => {
    const space = ' '.repeat((widths[index] as number) - visibleLength(cell));
    return right.includes(index) ? space + cell : cell + space;
  };
  return rows.map((row) => `${row.map(pad).join('  ').trimEnd()}\n`).join('');
}

function visibleLength(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours take no room
  return text.replace(/\u001b\[\d+m/g, '').length;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `1536` → `1.5 KiB`; three digits at most. */
export function humanBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** `part` of `whole` in percent, rounded down so that 100 % means all of it. An empty whole is complete. */
export function percent(part: number, whole: number): string {
  return `${whole === 0 ? 100 : Math.floor((100 * part) / whole)} %`;
}

/** A bar of `width` characters, filled to part/whole. */
export function bar(part: number, whole: number, width: number): string {
  const filled = whole === 0 ? width : Math.floor((width * Math.min(part, whole)) / whole);
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}
