import { existsSync, statSync } from 'node:fs';
import { Ajv, type ErrorObject } from 'ajv';
import { CONFIG_SCHEMA, type Config, camelCase, type SchemaNode } from './config-schema.ts';
import { lineOfKey, nearest, quoted } from './config-text.ts';
import { ShoalError } from './errors.ts';
import { parseBootstrap, parseListen } from './source/peer/bootstrap.ts';
import { checkBudget } from './source/peer/limits.ts';
import { loadSwarmKey } from './source/peer/swarm-key.ts';
import { camelKeys, parseToml, readTomlText, type TomlTable } from './toml-document.ts';

export type { Config } from './config-schema.ts';

/** Read when no file is named; its absence is fine. */
export const DEFAULT_CONFIG_PATH = '/etc/shoal/config.toml';

/** Command-line flags that override keys, and the keys they override. */
const FLAG_KEYS = {
  root: ['root'],
  socket: ['snapshotter', 'socket'],
  control: ['control', 'socket'],
  trap: ['trap', 'kind'],
  'log-level': ['log', 'level'],
} as const;

/** Compiled once: that takes some milliseconds. */
const validate = new Ajv({ useDefaults: true, allErrors: false }).compile(withObjectDefaults(CONFIG_SCHEMA));

/** A flag that overrides a key. */
export type ConfigFlag = keyof typeof FLAG_KEYS;

/** Values given on the command line. */
export type ConfigFlags = Readonly<Partial<Record<ConfigFlag, string>>>;

/**
 * The effective configuration: schema defaults, overridden by the file at `path`, overridden by `flags`. Deep-frozen.
 * Throws CONFIG_INVALID naming file, line and key; a file that was named must exist.
 */
export function loadConfig(init: {
  path?: string | undefined;
  flags?: ConfigFlags;
  env?: Readonly<Record<string, string | undefined>>;
}): Config {
  const path = init.path ?? DEFAULT_CONFIG_PATH;
  const text = init.path === undefined && !existsSync(path) ? '' : readTomlText(path);
  return parseConfig(text, { name: path, flags: init.flags ?? {}, env: init.env ?? {} });
}

/** The configuration that `text` (TOML) gives; `name` is how errors call it. Throws CONFIG_INVALID. */
export function parseConfig(
  text: string,
  init: { name: string; flags?: ConfigFlags; env?: Readonly<Record<string, string | undefined>> },
): Config {
  const table = parseToml(text, init.name);
  const flagged = applyFlags(table, init.flags ?? {});
  moveSockets(table);
  if (!validate(table)) throw explain((validate.errors as ErrorObject[])[0] as ErrorObject, { text, flagged, ...init });
  const config = camelKeys(CONFIG_SCHEMA, table, camelCase) as Config;
  checkSecurity(config, init.name);
  return deepFreeze(withDockerConfig(config, init.env ?? {}));
}

/** Writes the flags into the table; answers which flag set which key (`log.level` → `--log-level`). */
function applyFlags(table: TomlTable, flags: ConfigFlags): Map<string, string> {
  const flagged = new Map<string, string>();
  for (const [flag, value] of Object.entries(flags)) {
    if (value === undefined) continue;
    const keys = FLAG_KEYS[flag as ConfigFlag] as readonly string[];
    const [last, ...sections] = keys.toReversed() as [string, ...string[]];
    let target = table;
    for (const section of sections) {
      target[section] ??= {};
      if (typeof target[section] !== 'object') return flagged; // the schema check names it
      target = target[section] as TomlTable;
    }
    target[last] = value;
    flagged.set(keys.join('.'), `--${flag}`);
  }
  return flagged;
}

/** Sockets that nobody named follow a root of one's own, so that daemons with different roots never meet. */
function moveSockets(table: TomlTable): void {
  if (typeof table.root !== 'string') return;
  for (const section of ['snapshotter', 'control']) {
    table[section] ??= {};
    const keys = table[section];
    if (typeof keys === 'object' && keys !== null) (keys as TomlTable).socket ??= `${table.root}/${section}.sock`;
  }
}

/** The schema with `default: {}` on sections, so that the checker fills in their keys' defaults too. */
function withObjectDefaults(schema: SchemaNode): SchemaNode {
  if (schema.properties === undefined) return schema;
  const properties: Record<string, SchemaNode> = {};
  for (const [key, node] of Object.entries(schema.properties)) {
    properties[key] = node.type === 'object' ? { default: {}, ...withObjectDefaults(node) } : node;
  }
  return { ...schema, properties };
}

interface Origin {
  readonly text: string;
  readonly name: string;
  readonly flagged: ReadonlyMap<string, string>;
}

function explain(error: ErrorObject, { text, name, flagged }: Origin): ShoalError {
  const path = error.instancePath.split('/').slice(1).map(unescapePointer);
  const isUnknown = error.keyword === 'additionalProperties';
  if (isUnknown) path.push(String(error.params.additionalProperty));
  const key = path.map(quoted).join('.');
  const line = lineOfKey(text, path);
  const where = flagged.get(key) ?? (line === undefined ? name : `${name} line ${line}`);
  const what = isUnknown ? unknownKey(key, path) : `${key} ${reason(error)}`;
  return new ShoalError('CONFIG_INVALID', `${where}: ${what}`);
}

function unescapePointer(part: string): string {
  return part.replaceAll('~1', '/').replaceAll('~0', '~');
}

function unknownKey(key: string, path: readonly string[]): string {
  let node: SchemaNode | undefined = CONFIG_SCHEMA;
  for (const part of path.slice(0, -1)) {
    const children: boolean | SchemaNode | undefined = node?.additionalProperties;
    node = node?.properties?.[part] ?? (typeof children === 'object' ? children : undefined);
  }
  const known = nearest(path.at(-1) as string, Object.keys(node?.properties ?? {}));
  return `unknown key ${key}${known === undefined ? '' : `; did you mean ${known}?`}`;
}

function reason(error: ErrorObject): string {
  const params = error.params as Record<string, unknown>;
  if (error.keyword === 'enum') return `must be one of ${(params.allowedValues as string[]).join(', ')}`;
  if (error.keyword === 'pattern' && params.pattern === '^/.') return 'must be an absolute path';
  if (error.keyword === 'maxLength') return `is too long: a socket path has at most ${params.limit} bytes`;
  return error.message ?? 'is not valid';
}

/** Half-set security options are errors: they would be taken for protection that is not there. */
function checkSecurity(config: Config, name: string): void {
  for (const [host, registry] of Object.entries(config.registry)) {
    const section = `registry.${quoted(host)}`;
    const refuse = (message: string): never => {
      throw new ShoalError('CONFIG_INVALID', `${name}: ${message}`);
    };
    if (!/^[A-Za-z0-9.:[\]-]+$/.test(host)) refuse(`${section}: not a host name; expected host or host:port`);
    if (registry.username !== undefined && registry.passwordFile === undefined) {
      refuse(`${section}.username is set without password_file`);
    }
    if (registry.username === undefined && registry.passwordFile !== undefined) {
      refuse(`${section}.password_file is set without username`);
    }
    if (registry.passwordFile !== undefined) {
      checkSecretFile(registry.passwordFile, `${section}.password_file`, refuse);
    }
  }
  checkSwarm(config.swarm, name);
  checkKubeletPlugins(config, name);
  if (config.fetch.ca !== undefined && !existsSync(config.fetch.ca)) {
    throw new ShoalError('CONFIG_INVALID', `${name}: fetch.ca: ${config.fetch.ca} does not exist`);
  }
}

/** A swarm without its key would be open to everybody, a key without a swarm is a swarm that is off by mistake. */
function checkSwarm(swarm: Config['swarm'], name: string): void {
  const refuse = (message: string): never => {
    throw new ShoalError('CONFIG_INVALID', `${name}: ${message}`);
  };
  const { listen, keyFile, bootstrap } = swarm;
  if (listen !== undefined && keyFile === undefined) refuse('swarm.listen is set without swarm.key_file');
  if (listen === undefined && keyFile !== undefined) refuse('swarm.key_file is set without swarm.listen');
  if (listen === undefined && bootstrap.length > 0) refuse('swarm.bootstrap is set without swarm.listen');
  if (listen === undefined) return;
  parseListen(listen);
  for (const entry of bootstrap) parseBootstrap(entry);
  loadSwarmKey(keyFile as string);
  const { connectionsMax, recordsMax, memoryBytesMax } = swarm;
  checkBudget({ connections: connectionsMax, records: recordsMax, budgetBytes: memoryBytesMax });
}

function checkKubeletPlugins({ auth }: Config, name: string): void {
  const { kubeletProviderConfig, kubeletProviderDir } = auth;
  if ((kubeletProviderConfig === undefined) === (kubeletProviderDir === undefined)) return;
  const [set, missing] =
    kubeletProviderDir === undefined
      ? ['kubelet_provider_config', 'kubelet_provider_dir']
      : ['kubelet_provider_dir', 'kubelet_provider_config'];
  throw new ShoalError('CONFIG_INVALID', `${name}: auth.${set} is set without ${missing}`);
}

function checkSecretFile(path: string, key: string, refuse: (message: string) => never): void {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) refuse(`${key}: ${path} does not exist`);
  else if ((stat.mode & 0o077) !== 0) refuse(`${key}: ${path} is open to others; type: chmod 600 ${path}`);
}

function withDockerConfig(config: Config, env: Readonly<Record<string, string | undefined>>): Config {
  if (config.auth.dockerConfig !== undefined) return config;
  const folder = env.DOCKER_CONFIG ?? (env.HOME === undefined ? undefined : `${env.HOME}/.docker`);
  return folder === undefined ? config : { ...config, auth: { ...config.auth, dockerConfig: `${folder}/config.json` } };
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const child of Object.values(value)) deepFreeze(child);
    Object.freeze(value);
  }
  return value;
}
