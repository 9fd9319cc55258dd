import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../../src/errors.ts';
import {
  basicCredential,
  type Credential,
  type CredentialSource,
  chainCredentials,
} from '../../../src/source/origin/credentials.ts';
import { parseGoDuration, parseKubeletProviders } from '../../../src/source/origin/kubelet-config.ts';
import { matchesImage, matchingKeys } from '../../../src/source/origin/kubelet-match.ts';
import { createKubeletPlugins } from '../../../src/source/origin/kubelet-plugins.ts';
import { createKubernetesSecrets } from '../../../src/source/origin/kubernetes-secrets.ts';
import { createRememberedCredentials } from '../../../src/source/origin/remembered-credentials.ts';
import { soon } from './setup.ts';

const base64 = (text: string): string => Buffer.from(text).toString('base64');

async function directory() {
  const path = await mkdtemp(join(tmpdir(), 'shoal-credential-sources-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

async function all(source: CredentialSource, registry: string, repository: string, refused: readonly string[] = []) {
  const options = { signal: soon(), refused: (credential: Credential) => refused.includes(shown(credential)) };
  return (await source.find(registry, repository, options)).map(shown);
}

function shown(credential: Credential): string {
  if (credential.kind !== 'basic') return `${credential.kind} ${credential.token.reveal()}`;
  return `${credential.username}:${credential.password.reveal()}`;
}

function invalid(why: RegExp) {
  return (error: unknown): boolean =>
    hasCode(error, 'CONFIG_INVALID') && why.test(error.message) && !inspect(error, { depth: 9 }).includes('canary');
}

test('images match patterns as they do for kubelet', () => {
  const image = 'reg.example.com:5000/team/app';
  for (const pattern of [
    'reg.example.com:5000',
    '*.example.com:5000',
    '*.*.*:5000',
    'r?g.ex*le.com:5000/team',
    'reg.example.com:5000/team/app',
    'REG.example.com:5000',
  ]) {
    assert.ok(matchesImage(pattern, image), pattern);
  }
  for (const pattern of [
    'reg.example.com',
    '*.com:5000',
    '*:5000',
    'reg.example.com:5001',
    'reg.example.com:5000/other',
    'reg.example.com:*',
    'reg.example.com:5000/*',
    '',
    '/team',
  ]) {
    assert.ok(!matchesImage(pattern, image), pattern);
  }
  assert.ok(matchesImage('*.dkr.ecr.*.amazonaws.com', '1234.dkr.ecr.eu-west-1.amazonaws.com/a'));
  assert.deepEqual(
    matchingKeys(
      ['reg.example', '*.example', 'https://reg.example/v1/team', 'reg.example/team/app', 'x.example'],
      'reg.example/team/app',
    ),
    ['reg.example/team/app', 'https://reg.example/v1/team', 'reg.example', '*.example'],
  );
  assert.deepEqual(matchingKeys(['https://index.docker.io/v1/', 'quay.io'], 'docker.io/library/nginx'), [
    'https://index.docker.io/v1/',
  ]);
});

test('a glob matches what the same regular expression matches', () => {
  const label = fc.string({ unit: fc.constantFrom('a', 'b', '-'), maxLength: 8 });
  const glob = fc.string({ unit: fc.constantFrom('a', 'b', '-', '*', '?'), minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(glob, label, (pattern, text) => {
      const expression = new RegExp(`^${pattern.replaceAll('*', '.*').replaceAll('?', '.')}$`);
      assert.equal(matchesImage(`${pattern}.x`, `${text}.x/a`), expression.test(text));
    }),
    { numRuns: 2000 },
  );
});

test('durations are read as Go writes them', () => {
  assert.equal(parseGoDuration('0h5m0s'), 300_000);
  assert.equal(parseGoDuration('1.5h'), 5_400_000);
  assert.equal(parseGoDuration('300ms'), 300);
  assert.equal(parseGoDuration('0'), 0);
  for (const bad of ['', '5', '-5m', '5 m', 'm', '1d', '5m '.repeat(40)]) assert.equal(parseGoDuration(bad), undefined);
});

const PROVIDER = {
  name: 'ecr',
  matchImages: ['*.ecr.example'],
  defaultCacheDuration: '12h',
  apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
};
const CONFIG = { apiVersion: 'kubelet.config.k8s.io/v1', kind: 'CredentialProviderConfig', providers: [PROVIDER] };

test("kubelet's configuration is read, and what is wrong with it is named without showing it", () => {
  const yaml = `apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr # comment
    matchImages: ["*.ecr.example", '*.ecr.example.cn']
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    args: [get-credentials]
    env:
      - name: AWS_PROFILE
        value: one
`;
  assert.deepEqual(parseKubeletProviders(yaml, 'f'), [
    {
      name: 'ecr',
      matchImages: ['*.ecr.example', '*.ecr.example.cn'],
      defaultCacheDurationMs: 12 * 3_600_000,
      apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
      args: ['get-credentials'],
      env: { AWS_PROFILE: 'one' },
    },
  ]);
  const broken: [unknown, RegExp][] = [
    ['a: [canary', /not YAML/],
    ['', /kind/],
    [{ ...CONFIG, kind: 'X' }, /kind/],
    [{ ...CONFIG, apiVersion: 'v2' }, /apiVersion/],
    [{ ...CONFIG, providers: 'canary' }, /providers is not a list/],
    [{ ...CONFIG, providers: [null] }, /providers\[0\]\.name/],
    [{ ...CONFIG, providers: [PROVIDER, { ...PROVIDER, name: '../../bin/sh' }] }, /providers\[1\]\.name/],
    [{ ...CONFIG, providers: [{ ...PROVIDER, matchImages: [] }] }, /matchImages/],
    [{ ...CONFIG, providers: [{ ...PROVIDER, defaultCacheDuration: 5 }] }, /defaultCacheDuration/],
    [{ ...CONFIG, providers: [{ ...PROVIDER, apiVersion: 'v1' }] }, /apiVersion/],
    [{ ...CONFIG, providers: [{ ...PROVIDER, env: [{ name: 'A', value: ['canary'] }] }] }, /env/],
    ['x'.repeat(2 << 20), /1 MiB/],
  ];
  for (const [value, why] of broken) {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    assert.throws(() => parseKubeletProviders(text, '/etc/p.yaml'), invalid(why), text.slice(0, 60));
  }
});

test('no text makes the parser of that configuration throw anything but CONFIG_INVALID', () => {
  const piece = fc.constantFrom(
    'a: ',
    '- ',
    '\n',
    '  ',
    '[',
    ']',
    '{',
    '}',
    '&x ',
    '*x',
    '"',
    "'",
    '|',
    '!!t ',
    '? ',
    'providers',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 30 }).map((parts) => parts.join('')),
    fc.json().map((providers) => JSON.stringify({ ...CONFIG, providers: [JSON.parse(providers)] })),
  );
  fc.assert(
    fc.property(text, (config) => {
      try {
        parseKubeletProviders(config, 'f');
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'CONFIG_INVALID', String(error));
      }
    }),
    { numRuns: 1000 },
  );
});

/** A plugin as a real program: counts its runs, and answers with what lies beside it. */
async function plugin(
  folder: string,
  answer: unknown,
): Promise<{ runs(): Promise<number>; asked(): Promise<unknown> }> {
  await writeFile(join(folder, 'answer'), typeof answer === 'string' ? answer : JSON.stringify(answer));
  const script = `#!/bin/sh\ncat > ${folder}/asked\necho "$1 $SECRET_ENV" >> ${folder}/runs\ncat ${folder}/answer\n`;
  await writeFile(join(folder, 'ecr'), script, { mode: 0o755 });
  return {
    runs: async () => (await readFile(join(folder, 'runs'), 'utf8').catch(() => '')).split('\n').length - 1,
    asked: async () => JSON.parse(await readFile(join(folder, 'asked'), 'utf8')),
  };
}

function answerOf(fields: object = {}): object {
  const auth = { '*.ecr.example': { username: 'AWS', password: 'canary-one' } };
  return {
    kind: 'CredentialProviderResponse',
    apiVersion: PROVIDER.apiVersion,
    cacheKeyType: 'Registry',
    auth,
    ...fields,
  };
}

function source(binDir: string, provider: object = {}, clock = fakeClock()): CredentialSource {
  const text = JSON.stringify({ ...CONFIG, providers: [{ ...PROVIDER, ...provider }] });
  return createKubeletPlugins({ clock }, { providers: parseKubeletProviders(text, 'f'), binDir });
}

function fakeClock(): { now: number; nowMs(): number; wallTimeMs(): number; sleep(): Promise<void> } {
  return {
    now: 0,
    nowMs() {
      return this.now;
    },
    wallTimeMs: () => 0,
    sleep: async () => {},
  };
}

test('a plugin is run as kubelet runs it, once for as long as its answer is good', async () => {
  await using folder = await directory();
  const program = await plugin(folder.path, answerOf({ cacheDuration: '0h5m0s' }));
  const clock = fakeClock();
  const plugins = source(folder.path, { args: ['get'], env: [{ name: 'SECRET_ENV', value: 'e' }] }, clock);
  assert.deepEqual(await all(plugins, 'other.example', 'a'), [], 'not for images that do not match');
  assert.equal(await program.runs(), 0);
  const both = await Promise.all([all(plugins, 'r.ecr.example', 'a/b'), all(plugins, 'r.ecr.example', 'a/b')]);
  assert.deepEqual(both, [['AWS:canary-one'], ['AWS:canary-one']]);
  assert.equal(await program.runs(), 1, 'those who ask at once share a run');
  assert.deepEqual(await program.asked(), {
    apiVersion: PROVIDER.apiVersion,
    kind: 'CredentialProviderRequest',
    image: 'r.ecr.example/a/b',
  });
  assert.equal((await readFile(join(folder.path, 'runs'), 'utf8')).trim(), 'get e');
  await all(plugins, 'r.ecr.example', 'other');
  assert.equal(await program.runs(), 1, 'kept for the registry');
  await all(plugins, 's.ecr.example', 'a');
  assert.equal(await program.runs(), 2, 'not for another');
  clock.now = 300_001;
  await all(plugins, 'r.ecr.example', 'a/b');
  assert.equal(await program.runs(), 3, 'not for longer');
});

test('an answer is kept by image, by registry, for all, or not at all; one that was refused is asked for anew', async () => {
  for (const [fields, more] of [
    [{ cacheKeyType: 'Image' }, 1],
    [{ cacheKeyType: 'Global' }, 0],
    [{ cacheKeyType: 'Registry', cacheDuration: '0' }, 1],
  ] as const) {
    await using folder = await directory();
    const program = await plugin(folder.path, answerOf(fields));
    const plugins = source(folder.path);
    await all(plugins, 'r.ecr.example', 'a');
    await all(plugins, 'r.ecr.example', 'b');
    assert.equal(await program.runs(), 1 + more, JSON.stringify(fields));
  }
  await using folder = await directory();
  const program = await plugin(folder.path, answerOf());
  const plugins = source(folder.path);
  await all(plugins, 'r.ecr.example', 'a');
  const renewed = answerOf({ auth: { '*.ecr.example': { username: 'AWS', password: 'two' } } });
  await writeFile(join(folder.path, 'answer'), JSON.stringify(renewed));
  assert.deepEqual(await all(plugins, 'r.ecr.example', 'a'), ['AWS:canary-one']);
  assert.deepEqual(await all(plugins, 'r.ecr.example', 'a', ['AWS:canary-one']), ['AWS:two']);
  assert.equal(await program.runs(), 2);
});

test('a plugin that fails or talks nonsense is an error that shows nothing of what it said', async () => {
  for (const [answer, why] of [
    ['canary', /did not print/],
    [{ kind: 'X', canary: 1 }, /did not print/],
    [answerOf({ apiVersion: 'canary' }), /another apiVersion/],
    [answerOf({ cacheKeyType: 'canary' }), /cacheKeyType/],
    [answerOf({ cacheDuration: 'canary' }), /cacheDuration/],
  ] as const) {
    await using folder = await directory();
    await plugin(folder.path, answer);
    await assert.rejects(all(source(folder.path), 'r.ecr.example', 'a'), invalid(why));
  }
  await using folder = await directory();
  await assert.rejects(all(source(folder.path), 'r.ecr.example', 'a'), invalid(/could not be run/));
  await writeFile(join(folder.path, 'ecr'), '#!/bin/sh\necho canary >&2; exit 3\n', { mode: 0o755 });
  await assert.rejects(all(source(folder.path), 'r.ecr.example', 'a'), invalid(/exited with 3/));
});

test('pull secrets are found in every way they are mounted, and an updated one counts at once', async () => {
  await using folder = await directory();
  const secret = (host: string, login: string) => JSON.stringify({ auths: { [host]: { auth: base64(login) } } });
  const one = join(folder.path, 'secrets/one');
  await mkdir(join(one, '..v1'), { recursive: true });
  await writeFile(join(one, '..v1/.dockerconfigjson'), secret('*.corp.example', 'one:1'));
  await symlink('..v1', join(one, '..data'));
  await symlink('..data/.dockerconfigjson', join(one, '.dockerconfigjson'));
  await mkdir(join(folder.path, 'secrets/two'));
  await writeFile(
    join(folder.path, 'secrets/two/.dockercfg'),
    JSON.stringify({ 'reg.corp.example/team': { username: 'two', password: '2' } }),
  );
  await mkdir(join(folder.path, 'secrets/empty'));
  const every = createKubernetesSecrets({ path: join(folder.path, 'secrets') });
  assert.deepEqual(await all(every, 'reg.corp.example', 'team/app'), ['one:1', 'two:2']);
  assert.deepEqual(await all(every, 'reg.corp.example', 'app'), ['one:1']);
  assert.deepEqual(await all(every, 'corp.example', 'app'), []);
  assert.deepEqual(await all(createKubernetesSecrets({ path: one }), 'reg.corp.example', 'app'), ['one:1']);
  const file = createKubernetesSecrets({ path: join(one, '.dockerconfigjson') });
  assert.deepEqual(await all(file, 'reg.corp.example', 'app'), ['one:1']);
  await writeFile(join(one, '..v1/.dockerconfigjson'), secret('*.corp.example', 'one:changed'));
  assert.deepEqual(await all(every, 'reg.corp.example', 'app'), ['one:changed']);
  assert.deepEqual(await all(createKubernetesSecrets({ path: join(folder.path, 'none') }), 'a.example', 'b'), []);
  await writeFile(join(one, '..v1/.dockerconfigjson'), 'canary');
  await assert.rejects(all(every, 'reg.corp.example', 'app'), invalid(/not a JSON object/));
});

test('what was given for a repository counts for it alone, the newest first, and a wrong one can be taken back', async () => {
  const changed: string[] = [];
  const memory = createRememberedCredentials(
    { changed: (registry, repository) => changed.push(`${registry}/${repository}`) },
    { name: 'pulls', maxRemembered: 2 },
  );
  memory.remember('a.example', 'x', basicCredential('u', '1'));
  assert.deepEqual(await all(memory, 'a.example', 'x'), ['u:1']);
  assert.deepEqual(await all(memory, 'a.example', 'y'), []);
  assert.deepEqual(await all(memory, 'b.example', 'x'), []);
  memory.remember('a.example', 'x', basicCredential('u', '1'))();
  const takeBack = memory.remember('a.example', 'x', basicCredential('u', '2'));
  assert.deepEqual(await all(memory, 'a.example', 'x'), ['u:2']);
  takeBack();
  assert.deepEqual(await all(memory, 'a.example', 'x'), ['u:1']);
  assert.deepEqual(changed, ['a.example/x', 'a.example/x']);
  const late = memory.remember('a.example', 'x', basicCredential('u', '3'));
  memory.remember('a.example', 'x', basicCredential('u', '4'));
  late();
  assert.deepEqual(await all(memory, 'a.example', 'x'), ['u:4'], 'only what is still there is taken back');
  memory.remember('b.example', 'x', basicCredential('u', '5'));
  await all(memory, 'a.example', 'x');
  memory.remember('c.example', 'x', basicCredential('u', '6'));
  assert.deepEqual(await all(memory, 'b.example', 'x'), [], 'the one not used for longest is forgotten');
});

test('a source that fails is passed over; its error is told when nothing else helps', async () => {
  const broken: CredentialSource = {
    name: 'broken',
    find: async () => {
      throw new ShoalError('CONFIG_INVALID', 'it is broken');
    },
  };
  const good: CredentialSource = { name: 'good', find: async () => [basicCredential('u', 'p')] };
  const chain = chainCredentials([broken, good]);
  const seen: string[] = [];
  await assert.rejects(
    async () => {
      for await (const { source: name } of chain.candidates('a', 'b', { signal: soon() })) seen.push(name);
    },
    invalid(/it is broken/),
  );
  assert.deepEqual(seen, ['good']);
});
