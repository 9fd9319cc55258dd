import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { hasCode } from '../../../src/errors.ts';
import { createStaticCredentials } from '../../../src/source/origin/config-credentials.ts';
import { type Credential, type CredentialSource, chainCredentials } from '../../../src/source/origin/credentials.ts';
import { createDockerCredentials, type HelperRunner } from '../../../src/source/origin/docker-credentials.ts';
import { soon } from './setup.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

async function directory() {
  const path = await mkdtemp(join(tmpdir(), 'shoal-credentials-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function docker(config: unknown, runHelper?: HelperRunner) {
  const folder = await directory();
  const path = join(folder.path, 'config.json');
  await writeFile(path, typeof config === 'string' ? config : JSON.stringify(config));
  const source = createDockerCredentials({ path, ...(runHelper === undefined ? {} : { runHelper }) });
  return { find: (registry: string) => find(source, registry), [Symbol.asyncDispose]: folder[Symbol.asyncDispose] };
}

async function find(source: CredentialSource, registry: string): Promise<string | undefined> {
  const [found] = await source.find(registry, 'a/b', { signal: soon() });
  return found && shown(found);
}

function shown(credential: Credential): string {
  if (credential.kind !== 'basic') return `token ${credential.token.reveal()}`;
  return `${credential.username}:${credential.password.reveal()}`;
}

test('entries are found under every name docker gives them', async () => {
  await using config = await docker({
    auths: {
      'https://index.docker.io/v1/': { auth: base64('hub:one') },
      'quay.example': { auth: base64('quay:two:colons') },
      'https://old.example:5000/v2/': { username: 'old', password: 'three' },
      'padded.example': { auth: base64('pad:four\0\0') },
      'id.example': { auth: base64('<token>:'), identitytoken: 'five' },
      'both.example': { auth: base64('exact:six') },
      'https://both.example/v1/': { auth: base64('other:seven') },
      'empty.example': {},
    },
  });
  assert.equal(await config.find('docker.io'), 'hub:one');
  assert.equal(await config.find('quay.example'), 'quay:two:colons');
  assert.equal(await config.find('old.example:5000'), 'old:three');
  assert.equal(await config.find('padded.example'), 'pad:four');
  assert.equal(await config.find('id.example'), 'token five');
  assert.equal(await config.find('both.example'), 'exact:six');
  for (const none of ['empty.example', 'old.example', 'example', '__proto__', 'constructor']) {
    assert.equal(await config.find(none), undefined, none);
  }
});

test('helpers are asked as docker asks them, the registry’s own before the general one', async () => {
  const asked: string[] = [];
  const answers: Record<string, string | undefined> = {
    ecr: '{"ServerURL":"x","Username":"AWS","Secret":"one"}',
    desktop: '{"Username":"<token>","Secret":"two"}',
  };
  await using config = await docker(
    {
      credHelpers: { 'ecr.example': 'ecr', 'none.example': 'none' },
      credsStore: 'desktop',
      auths: { 'none.example': { auth: base64('file:three') } },
    },
    async (name, server) => {
      asked.push(`${name} ${server}`);
      return answers[name];
    },
  );
  assert.equal(await config.find('ecr.example'), 'AWS:one');
  assert.equal(await config.find('docker.io'), 'token two');
  assert.equal(await config.find('none.example'), 'file:three');
  assert.deepEqual(asked, ['ecr ecr.example', 'desktop https://index.docker.io/v1/', 'none none.example']);
});

test('a real helper program is run: server on stdin, answer on stdout', async () => {
  await using folder = await directory();
  const script = (name: string, text: string): Promise<void> =>
    writeFile(join(folder.path, `docker-credential-${name}`), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  await script('echo', 'read server; echo "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$server\\"}"');
  await script('none', 'echo "credentials not found in native keychain"; exit 1');
  await script('fails', 'echo canary-secret; exit 3');
  await script('hangs', 'sleep 60');
  await script('floods', 'while :; do echo 0123456789012345678901234567890123456789; done');
  await script('garbage', 'echo canary-secret');
  await chmod(folder.path, 0o755);
  const before = process.env.PATH;
  process.env.PATH = `${folder.path}:${before}`;
  try {
    const ask = async (helper: string): Promise<string | undefined> => {
      const path = join(folder.path, 'config.json');
      await writeFile(path, JSON.stringify({ credsStore: helper }));
      return find(createDockerCredentials({ path, helperTimeoutMs: 500 }), 'reg.example');
    };
    assert.equal(await ask('echo'), 'get:reg.example');
    assert.equal(await ask('none'), undefined);
    for (const [helper, why] of [
      ['fails', /exited with 3/],
      ['hangs', /within 500 ms/],
      ['floods', /too much/],
      ['garbage', /did not print/],
      ['absent', /could not be run/],
      ['../../bin/sh', /is not named/],
      ['Upper', /is not named/],
    ] as const) {
      await assert.rejects(
        ask(helper),
        (error) => hasCode(error, 'CONFIG_INVALID') && why.test(error.message) && !inspect(error).includes('canary'),
        helper,
      );
    }
  } finally {
    process.env.PATH = before;
  }
});

test('a missing file has no credentials; a broken one says so without showing what it holds', async () => {
  assert.equal(await find(createDockerCredentials({ path: '/nonexistent/config.json' }), 'docker.io'), undefined);
  for (const text of ['{"auths":{"a":"canary', '[]', 'canary', '{"auths":{"reg.example":{"auth":"Y2FuYXJ5"}}}']) {
    await using config = await docker(text);
    await assert.rejects(
      config.find('reg.example'),
      (error) => hasCode(error, 'CONFIG_INVALID') && !inspect(error, { depth: 10 }).includes('canary'),
      text,
    );
  }
});

test('sources are asked in order, and secrets do not print', async () => {
  const first = createStaticCredentials({
    'a.example': { username: 'u', password: 'canary' },
    'index.docker.io': { identityToken: 'canary' },
  });
  const second = createStaticCredentials({
    'a.example': { username: 'later', password: 'x' },
    'b.example': { username: 'b', password: 'y' },
  });
  const chain = chainCredentials([first, second]);
  const all = async (registry: string): Promise<string[]> => {
    const found: string[] = [];
    for await (const { credential } of chain.candidates(registry, 'x', { signal: soon() }))
      found.push(shown(credential));
    return found;
  };
  assert.deepEqual(await all('a.example'), ['u:canary', 'later:x']);
  assert.deepEqual(await all('b.example'), ['b:y']);
  assert.deepEqual(await all('docker.io'), ['token canary']);
  assert.deepEqual(await all('c.example'), []);
  const [secret] = await first.find('a.example', 'x', { signal: soon() });
  for (const text of [inspect(secret), JSON.stringify(secret), `${secret?.kind === 'basic' ? secret.password : ''}`]) {
    assert.ok(text.includes('[secret]') && !text.includes('canary'), text);
  }
});
