import { isAbsolute, join } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { ShoalError } from '../../errors.ts';
import { createLineFinder, type LineFinder } from '../../toml-lines.ts';
import { parseHost } from './hosts-file-host.ts';
import { MIRROR_LIMITS } from './limits.ts';

/** One host of a `hosts.toml`: containerd's keys (docs/hosts.md there) and those of nydus-snapshotter. */
export interface MirrorEntry {
  /** `scheme://host[:port]`. */
  readonly origin: string;
  /** Path of the registry API there, without a slash at its end: `/v2`, or what `override_path` says. */
  readonly path: string;
  /** May be asked for blobs and for manifests by digest. */
  readonly pull: boolean;
  /** May be asked what a tag means. */
  readonly resolve: boolean;
  /** PEM files of further authorities; absolute paths. */
  readonly ca: readonly string[];
  /** PEM files of client certificates; no key file: the first holds both. */
  readonly client: readonly (readonly [certificate: string, key: string | undefined])[];
  readonly skipVerify: boolean;
  /** Lower-case name and value; only names that may be sent. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly dialTimeoutMs?: number;
  readonly pingUrl?: string;
  readonly healthCheckIntervalMs?: number;
  readonly failureLimit?: number;
}

/** A `hosts.toml`, parsed: hosts in the order of the file, the server last. */
export interface HostsFile {
  readonly hosts: readonly MirrorEntry[];
  /** The `server` with the keys at the top of the file; undefined: the registry itself. */
  readonly server: MirrorEntry | undefined;
  /** For people: keys nobody knows, headers that are not sent, with file and line. */
  readonly warnings: readonly string[];
}

/** What the parts of the parser share. */
export interface HostsContext {
  /** Name of the file in messages. */
  readonly name: string;
  readonly line: LineFinder;
  warn(path: readonly string[], what: string): void;
  /** Makes the error for a key that cannot be used. */
  fail(path: readonly string[], what: string): ShoalError;
  /** File named in the file: relative ones lie beside it. */
  resolve(path: string): string;
}

/** Parses the text of a `hosts.toml` in `directory`. Throws CONFIG_INVALID naming file and line. */
export function parseHostsFile(text: string, init: { name: string; directory: string }): HostsFile {
  const warnings: { readonly line: number; readonly text: string }[] = [];
  const line = createLineFinder(text);
  const at = (path: readonly string[]): string => {
    const found = line(path);
    return `${init.name}${found === undefined ? '' : ` line ${found}`}`;
  };
  const context: HostsContext = {
    name: init.name,
    line,
    warn(path, what) {
      if (warnings.length < MIRROR_LIMITS.maxWarnings)
        warnings.push({ line: line(path) ?? 0, text: `${at(path)}: ${what}` });
    },
    fail: (path, what) => new ShoalError('CONFIG_INVALID', `${at(path)}: ${what}`),
    resolve: (path) => (isAbsolute(path) ? path : join(init.directory, path)),
  };
  const table = parseToml(text, init.name);
  const { server, host, ...top } = table;
  const hosts = orderedHosts(host, context).map(([url, keys]) => parseHost(url, keys, ['host', url], context));
  if (server !== undefined && typeof server !== 'string') throw context.fail(['server'], 'server must be a string');
  const isNamed = server !== undefined && server !== '';
  // The keys at the top are the server's; without a server they are checked all the same.
  const entry = parseHost(isNamed ? server : 'https://registry.invalid', top, [], context);
  const inOrder = warnings.sort((a, b) => a.line - b.line).map(({ text }) => text);
  return { hosts, server: isNamed ? entry : undefined, warnings: inOrder };
}

function parseToml(text: string, name: string): Record<string, unknown> {
  if (text.length > MIRROR_LIMITS.maxFileBytes) {
    throw new ShoalError('CONFIG_INVALID', `${name}: larger than ${MIRROR_LIMITS.maxFileBytes} bytes`);
  }
  try {
    return parse(text);
  } catch (cause) {
    const at = cause instanceof TomlError ? ` line ${cause.line}` : '';
    const reason = ((cause as Error).message.split('\n')[0] as string).replace(/^Invalid TOML document: /, '');
    throw new ShoalError('CONFIG_INVALID', `${name}${at}: not TOML: ${reason}`, { cause });
  }
}

/** The hosts in the order of the file: objects put keys that look like numbers first. */
function orderedHosts(host: unknown, context: HostsContext): [string, Record<string, unknown>][] {
  if (host === undefined) return [];
  if (!isTable(host)) throw context.fail(['host'], 'host must be a table: [host."https://mirror.example"]');
  const found = Object.entries(host);
  if (found.length > MIRROR_LIMITS.maxHosts) {
    throw context.fail(['host'], `more than ${MIRROR_LIMITS.maxHosts} hosts`);
  }
  const lineOf = (url: string): number => context.line(['host', url]) ?? Number.MAX_SAFE_INTEGER;
  const sorted = found.some(([url]) => /^\d+$/.test(url)) ? found.sort((a, b) => lineOf(a[0]) - lineOf(b[0])) : found;
  return sorted.map(([url, keys]) => {
    if (!isTable(keys)) throw context.fail(['host', url], `host.${JSON.stringify(url)} must be a table`);
    return [url, keys];
  });
}

function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Date);
}
