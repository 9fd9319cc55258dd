import { stringify } from 'smol-toml';
import { CONFIG_SCHEMA, type Config, camelCase, type SchemaNode } from './config-schema.ts';
import { quoted } from './core/toml-text.ts';

export { nearest, quoted } from './core/toml-text.ts';
export { lineOfKey } from './toml-lines.ts';

/** The configuration as a documented TOML file that, read back, gives the same; unset keys are commented out. */
export function renderConfig(config: Config): string {
  return `${renderObject(CONFIG_SCHEMA, config, []).join('\n').trim()}\n`;
}

function renderObject(schema: SchemaNode, value: unknown, path: readonly string[]): string[] {
  const lines: string[] = [];
  const properties = Object.entries(schema.properties ?? {});
  for (const [key, node] of properties.filter(([, { type }]) => type !== 'object')) {
    lines.push(...comment(node), renderKey(key, (value as Record<string, unknown>)[camelCase(key)]));
  }
  for (const [key, node] of properties.filter(([, { type }]) => type === 'object')) {
    const child = (value as Record<string, unknown>)[camelCase(key)];
    lines.push('', ...renderSection(node, child, [...path, key]));
  }
  return lines;
}

function renderSection(node: SchemaNode, value: unknown, path: readonly string[]): string[] {
  const header = `[${path.map(quoted).join('.')}]`;
  const named = node.additionalProperties;
  if (typeof named !== 'object') return [...comment(node), header, ...renderObject(node, value, path)];
  const children = Object.entries(value as Record<string, unknown>);
  if (children.length === 0) return comment(node);
  return children.flatMap(([name, child], index) => [
    ...(index === 0 ? [] : ['']),
    ...renderSection(named, child, [...path, name]),
  ]);
}

function renderKey(key: string, value: unknown): string {
  return value === undefined ? `# ${key} =` : stringify({ [key]: value }).trim();
}

function comment(node: SchemaNode): string[] {
  return node.description === undefined ? [] : [`# ${node.description}${allowed(node)}`];
}

/** What a value may be, for people: ` One of a, b.` or ` 1 to 9.`; empty for free text. */
export function allowed(node: SchemaNode): string {
  if (node.enum !== undefined) return ` One of ${node.enum.join(', ')}.`;
  return node.minimum === undefined ? '' : ` ${node.minimum} to ${node.maximum}.`;
}
