import { posix } from 'node:path';
import { parseDuration } from './duration.ts';
import { whyRefused } from './headers.ts';
import type { HostsContext, MirrorEntry } from './hosts-file.ts';
import { MIRROR_LIMITS } from './limits.ts';

const KNOWN = new Set([
  'capabilities',
  'ca',
  'client',
  'skip_verify',
  'header',
  'override_path',
  'dial_timeout',
  'ping_url',
  'health_check_interval',
  'failure_limit',
]);
const SECOND_MS = 1_000;

type Table = Record<string, unknown>;

/** One `[host."url"]`, or the keys at the top of the file with its `server`. `path` is where its keys are. */
export function parseHost(url: string, keys: Table, path: readonly string[], context: HostsContext): MirrorEntry {
  for (const key of Object.keys(keys)) {
    if (!KNOWN.has(key)) context.warn([...path, key], `unknown key ${key.slice(0, 80)}`);
  }
  const key = new Keys(keys, path, context);
  const capabilities = key.strings('capabilities')?.map((each) => each.toLowerCase());
  for (const each of capabilities ?? []) {
    if (!['pull', 'resolve', 'push'].includes(each)) {
      throw key.fail('capabilities', `has ${JSON.stringify(each.slice(0, 40))}, not pull, resolve or push`);
    }
  }
  // As containerd has it: none named means all.
  const may = (what: string): boolean =>
    capabilities === undefined || capabilities.length === 0 || capabilities.includes(what);
  const { origin, pathname } = parseBase(url, path, context);
  const pingUrl = key.string('ping_url');
  const dialTimeoutMs = dialTimeout(key);
  const healthCheckIntervalMs = key.integer('health_check_interval', 3_600);
  const failureLimit = key.integer('failure_limit', 1_000);
  return {
    origin,
    path: apiPath(pathname, key.boolean('override_path')),
    pull: may('pull'),
    resolve: may('resolve'),
    ca: (key.stringOrStrings('ca') ?? []).map(context.resolve),
    client: clientPairs(key, context),
    skipVerify: key.boolean('skip_verify'),
    headers: headers(key, path, context),
    ...(dialTimeoutMs === undefined ? {} : { dialTimeoutMs }),
    ...(pingUrl === undefined || pingUrl === '' ? {} : { pingUrl: parsePing(pingUrl, origin, key) }),
    ...(healthCheckIntervalMs === undefined ? {} : { healthCheckIntervalMs: healthCheckIntervalMs * SECOND_MS }),
    ...(failureLimit === undefined ? {} : { failureLimit }),
  };
}

/** Reads keys of one table, each with its type. */
class Keys {
  readonly #keys: Table;
  readonly #path: readonly string[];
  readonly #context: HostsContext;

  constructor(keys: Table, path: readonly string[], context: HostsContext) {
    this.#keys = keys;
    this.#path = path;
    this.#context = context;
  }

  get(name: string): unknown {
    return Object.hasOwn(this.#keys, name) ? this.#keys[name] : undefined;
  }

  fail(name: string, what: string) {
    return this.#context.fail([...this.#path, name], `${name} ${what}`);
  }

  string(name: string): string | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== 'string') throw this.fail(name, 'must be a string');
    return value;
  }

  boolean(name: string): boolean {
    const value = this.get(name) ?? false;
    if (typeof value !== 'boolean') throw this.fail(name, 'must be true or false');
    return value;
  }

  /** A whole number from 1 to `most`; 0 means that it is not set, as in nydus. */
  integer(name: string, most: number): number | undefined {
    const value = this.get(name);
    if (value === undefined || value === 0) return undefined;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > most) {
      throw this.fail(name, `must be a whole number from 1 to ${most}`);
    }
    return value;
  }

  strings(name: string): string[] | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (!isStrings(value)) throw this.fail(name, 'must be a list of strings');
    return value;
  }

  stringOrStrings(name: string): string[] | undefined {
    const value = this.get(name);
    if (typeof value === 'string') return [value];
    if (value !== undefined && !isStrings(value)) throw this.fail(name, 'must be a string or a list of strings');
    return value;
  }
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

/** As containerd reads a host: https unless it says http. */
function parseBase(text: string, path: readonly string[], context: HostsContext): { origin: string; pathname: string } {
  const where = path.length === 0 ? ['server'] : path;
  const shown = JSON.stringify(text.slice(0, 120));
  const hasScheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(text);
  const url = text.length > 2_048 ? null : URL.parse(hasScheme ? text : `https://${text}`);
  if (url === null || url.hostname === '') throw context.fail(where, `${shown} is not a host or an http(s) URL`);
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw context.fail(where, `${shown} is neither http nor https`);
  if (url.username !== '' || url.password !== '') throw context.fail(where, 'a URL with a user name is not allowed');
  if (url.search !== '' || url.hash !== '') throw context.fail(where, `${shown} has a query or a fragment`);
  if (url.port === '0') throw context.fail(where, `${shown} has port 0`);
  return { origin: url.origin, pathname: url.pathname };
}

function apiPath(pathname: string, override: boolean): string {
  const path = posix.normalize(pathname).replace(/\/+$/, '');
  return override || path.endsWith('/v2') ? path : `${path}/v2`;
}

function parsePing(text: string, origin: string, key: Keys): string {
  const url = text.length > 2_048 ? null : URL.parse(text, origin);
  const usable = url !== null && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '';
  if (!usable || url.port === '0') throw key.fail('ping_url', 'must be an http(s) URL without a user name');
  url.hash = '';
  return url.href;
}

function dialTimeout(key: Keys): number | undefined {
  const text = key.string('dial_timeout');
  if (text === undefined || text === '') return undefined;
  const ms = parseDuration(text);
  if (ms === undefined) throw key.fail('dial_timeout', `must be a duration such as "500ms" or "3s"`);
  // 0: containerd takes its default.
  return ms === 0 ? undefined : Math.min(Math.max(1, Math.round(ms)), MIRROR_LIMITS.maxDialTimeoutMs);
}

/** `"file"`, `["file", …]` or `[["certificate", "key"], …]`; a file alone holds certificate and key. */
function clientPairs(key: Keys, context: HostsContext): MirrorEntry['client'] {
  const value = key.get('client');
  if (value === undefined) return [];
  const wrong = () => key.fail('client', 'must be a file, a list of files, or a list of pairs [certificate, key]');
  if (typeof value !== 'string' && !Array.isArray(value)) throw wrong();
  return (typeof value === 'string' ? [value] : value).map((each: unknown) => {
    const pair = typeof each === 'string' ? [each] : each;
    if (!isStrings(pair) || pair.length < 1 || pair.length > 2) throw wrong();
    const [certificate, own] = pair as [string, string | undefined];
    return [context.resolve(certificate), own === undefined || own === '' ? undefined : context.resolve(own)] as const;
  });
}

function headers(key: Keys, path: readonly string[], context: HostsContext): MirrorEntry['headers'] {
  const value = key.get('header');
  if (value === undefined) return [];
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw key.fail('header', 'must be a table');
  const list: [string, string][] = [];
  let bytes = 0;
  for (const [name, given] of Object.entries(value)) {
    const values = typeof given === 'string' ? [given] : given;
    if (!isStrings(values)) throw key.fail('header', `${name.slice(0, 80)} must be a string or a list of strings`);
    for (const one of values) {
      const refused = whyRefused(name.toLowerCase(), one);
      bytes += name.length + one.length;
      if (refused === undefined) list.push([name.toLowerCase(), one]);
      else context.warn([...path, 'header', name], `header ${name.slice(0, 80)} ${refused}`);
    }
  }
  if (list.length > MIRROR_LIMITS.maxHeaders || bytes > MIRROR_LIMITS.maxHeaderBytes) {
    throw key.fail('header', `has more than ${MIRROR_LIMITS.maxHeaders} or ${MIRROR_LIMITS.maxHeaderBytes} bytes`);
  }
  return list;
}
