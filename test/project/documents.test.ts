import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { GENERATED_DOCS } from '../../scripts/generate-docs.ts';
import { CONFIG_SCHEMA, camelCase, type SchemaNode } from '../../src/config-schema.ts';
import { ERROR_CODES } from '../../src/errors.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

function read(path: string): string {
  return readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
}

test('the generated pages are current (npm run docs writes them)', async () => {
  for (const [path, make] of GENERATED_DOCS) assert.equal(read(path), await make(), path);
});

test('docs/errors.md has one heading per error code, in the order of the catalogue', () => {
  const headings = Array.from(read('docs/errors.md').matchAll(/^### ([A-Z_]+)$/gm), (match) => match[1]);
  assert.deepEqual(headings, [...ERROR_CODES]);
});

test('docs/dependencies.md says why for each dependency, and for nothing else', () => {
  const { dependencies, devDependencies } = JSON.parse(read('package.json'));
  const listed = Array.from(
    read('docs/dependencies.md').matchAll(/^\| `([^`]+)` \| [^|]{20,} \|/gm),
    (match) => match[1],
  );
  assert.deepEqual(listed.sort(), [...Object.keys(dependencies), ...Object.keys(devDependencies)].sort());
});

test('every configuration key is read somewhere: none is an empty promise', () => {
  const files = globSync('src/**/*.ts', { cwd: ROOT }).filter((file) => !/^src\/config(-\w+)?\.ts$/.test(file));
  const source = files.map(read).join('\n');
  const check = (node: SchemaNode, path: string): void => {
    for (const [key, child] of Object.entries(node.properties ?? {})) {
      if (child.type === 'object') check(child, `${path}${key}.`);
      else assert.match(source, new RegExp(`\\b${camelCase(key)}\\b`), `${path}${key} is read nowhere`);
    }
    if (typeof node.additionalProperties === 'object') check(node.additionalProperties, `${path}*.`);
  };
  check(CONFIG_SCHEMA, '');
});

test('links between documents lead somewhere', () => {
  for (const page of ['README.md', 'SECURITY.md', 'CHANGELOG.md', ...globSync('docs/*.md', { cwd: ROOT })]) {
    for (const [, target] of read(page).matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g)) {
      const path = page.startsWith('docs/') ? `docs/${target}` : target;
      assert.doesNotThrow(() => read(path as string), `${page} links to ${target}`);
    }
  }
});

test('the newest release in CHANGELOG.md is the version of the package', () => {
  const { version } = JSON.parse(read('package.json'));
  assert.equal(/^## \[?([\d.]+)/m.exec(read('CHANGELOG.md'))?.[1], version);
});
