import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { runFile } from '../../scripts/run-tests.ts';
import { CANARY, hasCanary } from './needles.ts';

/** What a run of a test file with this body found. */
async function found(t: TestContext, body: string) {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-watch-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const modules = ['owner.ts'].map((name) => new URL(name, import.meta.url).href);
  writeFileSync(
    join(folder, 'x.test.mjs'),
    `import { test } from 'node:test';
import { createServer } from 'node:http';
import { spawnSync } from 'node:child_process';
import { writeFileSync, mkdirSync } from 'node:fs';
import { createCipheriv } from 'node:crypto';
import crypto from 'node:crypto';
import { ownsSecrets } from '${modules[0]}';
const server = createServer((request, response) => response.end());
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = 'http://127.0.0.1:' + server.address().port;
const login = 'Basic ' + Buffer.from('ali:canary-one').toString('base64');
test('a', async () => { ${body} });
test.after?.(() => server.close());
server.unref();`,
  );
  const { canaries, tests } = await runFile('x.test.mjs', { testTimeoutMs: 20_000, fileTimeoutMs: 20_000 }, folder);
  return { ...canaries, failed: tests.filter(({ outcome }) => outcome === 'failed').map(({ detail }) => detail) };
}

test('a secret is recognised as text, in hex and within base64 of any alignment', () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), (before, after) => {
      const text = `${before}${CANARY}${after}`;
      const bytes = Buffer.from(text);
      for (const form of [text, bytes, bytes.toString('hex'), bytes.toString('base64'), bytes.toString('base64url')]) {
        assert.ok(hasCanary(form));
      }
    }),
  );
  assert.ok(!hasCanary('a canary, no secret'));
});

test('a secret in a request is where it belongs at its owner, and a failure anywhere else, which both sides see', async (t) => {
  const sent = 'await fetch(url, { headers: { authorization: login } });';
  const owned = await found(t, `ownsSecrets(url); ${sent}`);
  assert.deepEqual([owned.used, owned.leaks, owned.failed], [2, [], []]);
  const leaked = await found(t, sent);
  assert.equal(leaked.leaks.length, 2);
  assert.equal(leaked.failed.length, 2, 'the run fails although its tests passed');
  const body = await found(t, "await fetch(url, { method: 'POST', body: 'password=canary-one' });");
  assert.equal(body.leaks.length, 1);
  const path = await found(t, "await fetch(url + '/?t=canary-one');");
  assert.equal(path.leaks.length, 2);
  assert.deepEqual((await found(t, 'await fetch(url);')).failed, []);
});

test('a secret in what shoal logs, prints or answers, or on a stream to a peer, is a failure', async (t) => {
  const shoal = (code: string): string =>
    `mkdirSync('src', { recursive: true }); writeFileSync('src/main.ts', ${JSON.stringify(code)}); spawnSync(process.execPath, ['src/main.ts'].map((name) => process.cwd() + '/' + name));`;
  const log = await found(t, shoal("process.stderr.write('pulled with canary-one')"));
  assert.deepEqual(log.leaks, ["in shoal's log"]);
  const printed = await found(t, shoal("console.log('canary-one')"));
  assert.deepEqual(printed.leaks, ["in shoal's standard output"]);
  const answer = await found(
    t,
    shoal(
      "require('http').createServer((_, response) => response.end('canary-one')).listen(0, function () { fetch('http://127.0.0.1:' + this.address().port).then(() => process.exit()); })",
    ),
  );
  assert.deepEqual(answer.leaks, ["in an answer of shoal's"]);
  const peer = await found(
    t,
    "crypto.createCipheriv('chacha20-poly1305', Buffer.alloc(32), Buffer.alloc(12), { authTagLength: 16 }).update(Buffer.from('canary-one'));",
  );
  assert.deepEqual(peer.leaks, ['on a stream to a peer']);
});
