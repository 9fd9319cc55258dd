import { Ajv, type ErrorObject } from 'ajv';
import { nearest, quoted } from '../../src/core/toml-text.ts';
import { ShoalError } from '../../src/errors.ts';
import { camelKeys, parseToml, readTomlText, type TomlTable } from '../../src/toml-document.ts';
import { lineOfKey } from '../../src/toml-lines.ts';
import { checkScenario } from './check.ts';
import type { Scenario } from './scenario.ts';
import { type Node, SCENARIO_SCHEMA } from './schema.ts';

/** A key set from outside the file: `nodes.count` → 100. */
export type Override = readonly [key: string, value: unknown];

const validate = new Ajv({ useDefaults: true, allErrors: false }).compile(withSections(SCENARIO_SCHEMA));

/** Reads a scenario file. Throws CONFIG_INVALID naming file, line and key. */
export function loadScenario(path: string, overrides: readonly Override[] = []): Scenario {
  return parseScenario(readTomlText(path), { name: path, overrides });
}

/** The scenario that `text` (TOML) gives; `name` is how errors call it. Throws CONFIG_INVALID. */
export function parseScenario(text: string, init: { name: string; overrides?: readonly Override[] }): Scenario {
  const refuse = (path: readonly string[], message: string): ShoalError => {
    const overridden = init.overrides?.some(([key]) => key === path.join('.')) === true;
    const line = overridden || path.length === 0 ? undefined : lineOf(text, path);
    const where = overridden ? 'the command line' : line === undefined ? init.name : `${init.name} line ${line}`;
    return new ShoalError('CONFIG_INVALID', `${where}: ${message}`);
  };
  const table = parseToml(text, init.name);
  for (const [key, value] of init.overrides ?? []) override(table, key, value);
  if (!validate(table)) throw explain((validate.errors as ErrorObject[])[0] as ErrorObject, refuse);
  const scenario = camelKeys(SCENARIO_SCHEMA, table, camelCase) as Scenario;
  checkScenario(scenario, refuse);
  return scenario;
}

/** The line of a key, or of the section that lacks it. */
function lineOf(text: string, path: readonly string[]): number | undefined {
  for (let length = path.length; length > 0; length -= 1) {
    const line = lineOfKey(text, path.slice(0, length));
    if (line !== undefined) return line;
  }
  return undefined;
}

function override(table: TomlTable, key: string, value: unknown): void {
  const parts = key.split('.');
  const last = parts.pop() as string;
  let target = table;
  for (const part of parts) {
    target[part] ??= {};
    if (typeof target[part] !== 'object') return; // the schema check names it
    target = target[part] as TomlTable;
  }
  target[last] = value;
}

/** The schema with `default: {}` on sections that have names of their own, so that their keys' defaults are filled in. */
function withSections(node: Node): Node {
  const { additionalProperties: each } = node;
  const named = typeof each === 'object' ? { additionalProperties: withSections(each) } : {};
  if (node.properties === undefined) return { ...node, ...named };
  const properties: Record<string, Node> = {};
  for (const [key, child] of Object.entries(node.properties)) {
    const isRequired = node.required?.includes(key) === true;
    properties[key] =
      child.type === 'object' && !isRequired ? { default: {}, ...withSections(child) } : withSections(child);
  }
  return { ...node, properties };
}

function camelCase(key: string): string {
  return key.replace(/[_-]([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

function explain(error: ErrorObject, refuse: (path: readonly string[], message: string) => ShoalError): ShoalError {
  const path = error.instancePath
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
  const params = error.params as Record<string, unknown>;
  if (error.keyword === 'required') {
    const missing = [...path, String(params.missingProperty)].map(quoted).join('.');
    return refuse(path, `${missing} is missing`);
  }
  if (error.keyword === 'additionalProperties') {
    path.push(String(params.additionalProperty));
    const meant = nearest(path.at(-1) as string, keysAt(path.slice(0, -1)));
    const hint = meant === undefined ? '' : `; did you mean ${meant}?`;
    return refuse(path, `unknown key ${path.map(quoted).join('.')}${hint}`);
  }
  const key = path.map(quoted).join('.');
  if (error.keyword === 'enum') {
    return refuse(path, `${key} must be one of ${(params.allowedValues as string[]).join(', ')}`);
  }
  return refuse(path, `${key} ${error.message ?? 'is not valid'}`);
}

function keysAt(path: readonly string[]): string[] {
  let node: Node | undefined = SCENARIO_SCHEMA;
  for (const part of path) {
    const each: boolean | Node | undefined = node?.additionalProperties;
    node = node?.properties?.[part] ?? (typeof each === 'object' ? each : undefined);
  }
  return Object.keys(node?.properties ?? {});
}
