import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { basicCredential, sameCredential } from '../../../src/source/origin/credentials.ts';
import { Secret } from '../../../src/source/origin/secret.ts';

test('secrets are compared by their own method, whatever their lengths', () => {
  assert.ok(new Secret('a').equals(new Secret('a')));
  assert.ok(!new Secret('a').equals(new Secret('ab')));
  assert.ok(sameCredential(basicCredential('u', 'p'), basicCredential('u', 'p')));
  assert.ok(!sameCredential(basicCredential('u', 'p'), basicCredential('u', 'q')));
  assert.ok(!sameCredential(basicCredential('u', 'p'), basicCredential('v', 'p')));
  const token = (kind: 'identity-token' | 'registry-token', text: string) => ({ kind, token: new Secret(text) });
  assert.ok(sameCredential(token('identity-token', 't'), token('identity-token', 't')));
  assert.ok(!sameCredential(token('identity-token', 't'), token('registry-token', 't')));
  assert.ok(!sameCredential(token('identity-token', 't'), basicCredential('u', 't')));
});

test('no code compares what a secret reveals with an operator (S17)', () => {
  const root = new URL('../../../', import.meta.url);
  for (const file of globSync('src/**/*.ts', { cwd: root })) {
    for (const line of readFileSync(new URL(file, root), 'utf8').split('\n')) {
      assert.ok(!/reveal\(\)\s*[!=]==?|[!=]==?\s*[\w.?()]*reveal\(\)/.test(line), `${file}: ${line.trim()}`);
    }
  }
});
