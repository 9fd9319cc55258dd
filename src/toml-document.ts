import { readFileSync, statSync } from 'node:fs';
import { parse, TomlError } from 'smol-toml';
import { ShoalError } from './errors.ts';

/** A TOML table as it was parsed: nothing about it is known yet. */
export type TomlTable = Record<string, unknown>;

/** What the walk from a file's keys to the code's needs of a schema. */
interface ObjectSchema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, ObjectSchema>>;
  /** Of what kind values under names of one's own are. */
  readonly additionalProperties?: boolean | ObjectSchema;
}

/** Larger files are nobody's configuration, bytes. */
const MAX_FILE_BYTES = 1024 * 1024;

/** The text of a file. Throws CONFIG_INVALID when it cannot be read or is larger than 1 MiB. */
export function readTomlText(path: string): string {
  try {
    if (statSync(path).size > MAX_FILE_BYTES) throw new Error(`larger than ${MAX_FILE_BYTES} bytes`);
    return readFileSync(path, 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ShoalError('CONFIG_INVALID', `${path} can't be read: ${reason}`, { cause });
  }
}

/** Parses TOML; `name` is how errors call it. Throws CONFIG_INVALID with the line. */
export function parseToml(text: string, name: string): TomlTable {
  try {
    return parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const reason = (cause.message.split('\n')[0] as string).replace(/^Invalid TOML document: /, '');
    throw new ShoalError('CONFIG_INVALID', `${name} line ${cause.line}: not TOML: ${reason}`, { cause });
  }
}

/** The value with the keys that the schema names in camelCase; names of one's own stay as they are. */
export function camelKeys(schema: ObjectSchema, value: unknown, camelCase: (key: string) => string): unknown {
  if (schema.type !== 'object') return value;
  const children = schema.additionalProperties;
  const entries = Object.entries(value as TomlTable).map(([key, child]): [string, unknown] =>
    typeof children === 'object'
      ? [key, camelKeys(children, child, camelCase)]
      : [camelCase(key), camelKeys(schema.properties?.[key] ?? {}, child, camelCase)],
  );
  return Object.fromEntries(entries);
}
