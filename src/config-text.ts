import { stringify } from 'smol-toml';
import { CONFIG_SCHEMA, type Config, camelCase, type SchemaNode } from './config-schema.ts';

export { lineOfKey } from './toml-lines.ts';

/** The word of `known` that `word` was probably meant to be (at most a third of its letters differ). */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.floor(word.length / 3) + 1;
  for (const candidate of known) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

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

/** A part of a key as TOML writes it: in quotes when it needs them. */
export function quoted(part: string): string {
  return /^[\w-]+$/.test(part) ? part : JSON.stringify(part);
}

/** What a value may be, for people: ` One of a, b.` or ` 1 to 9.`; empty for free text. */
export function allowed(node: SchemaNode): string {
  if (node.enum !== undefined) return ` One of ${node.enum.join(', ')}.`;
  return node.minimum === undefined ? '' : ` ${node.minimum} to ${node.maximum}.`;
}
