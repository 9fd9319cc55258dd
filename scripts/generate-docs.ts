/** `npm run docs`: writes the reference pages that come from code; a test proves that they are current. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { commandReference } from '../src/cli/help.ts';
import { CONFIG_SCHEMA, type SchemaNode } from '../src/config-schema.ts';
import { allowed } from '../src/config-text.ts';

const CONFIG_INTRO = `# Configuration

shoal reads \`/etc/shoal/config.toml\`, or the file named by \`--config\`. Without a file every key has its default.
A key nobody knows is an error that names the line and the key that was probably meant. \`shoal config\` prints the
configuration in effect as a documented file to start from. Flags win over the file.

This page is generated from \`src/config-schema.ts\` (\`npm run docs\`).
`;

/** Generated pages: path from the repository root → how to make its text. */
export const GENERATED_DOCS: ReadonlyMap<string, () => Promise<string>> = new Map([
  ['docs/configuration.md', async () => configurationPage()],
  ['docs/cli.md', commandReference],
]);

function configurationPage(): string {
  const lines = [CONFIG_INTRO, ...section('Top level', CONFIG_SCHEMA)];
  for (const [name, node] of Object.entries(CONFIG_SCHEMA.properties) as [string, SchemaNode][]) {
    if (node.type !== 'object') continue;
    const named = node.additionalProperties;
    const isNamed = typeof named === 'object';
    lines.push(
      ...section(
        isNamed ? `\`[${name}."${name === 'image' ? 'pattern' : 'host'}"]\`` : `\`[${name}]\``,
        isNamed ? named : node,
      ),
    );
  }
  return `${lines.join('\n').trim()}\n`;
}

function section(title: string, node: SchemaNode): string[] {
  const rows = Object.entries(node.properties ?? {})
    .filter(([, key]) => key.type !== 'object')
    .map(([name, key]) => `| \`${name}\` | ${key.type} | ${shown(key.default)} | ${key.description}${allowed(key)} |`);
  const intro = node.description === undefined ? [] : [node.description, ''];
  return [`## ${title}`, '', ...intro, '| key | type | default | meaning |', '|---|---|---|---|', ...rows, ''];
}

function shown(value: unknown): string {
  return value === undefined ? 'not set' : `\`${JSON.stringify(value)}\``;
}

if (import.meta.main) {
  for (const [path, make] of GENERATED_DOCS) {
    const file = fileURLToPath(new URL(`../${path}`, import.meta.url));
    const text = await make();
    if (readFileSync(file, { encoding: 'utf8', flag: 'a+' }) === text) continue;
    writeFileSync(file, text);
    process.stdout.write(`wrote ${path}\n`);
  }
}
