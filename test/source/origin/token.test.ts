import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { hasCode, ShoalError } from '../../../src/errors.ts';
import { createLogger } from '../../../src/log.ts';
import { parseChallenges } from '../../../src/source/origin/challenge.ts';
import { createStaticCredentials, type StaticCredentials } from '../../../src/source/origin/config-credentials.ts';
import { basicCredential, type CredentialSource } from '../../../src/source/origin/credentials.ts';
import { Secret } from '../../../src/source/origin/secret.ts';
import { type FakeAuth, FakeRegistry } from '../../fakes/registry.ts';
import { imageAt, movableClock, randomBytes, soon, testClient } from './setup.ts';

const LOGIN = { username: 'robot', password: 'canary-password' };

async function setup(auth: FakeAuth, credentials?: (host: string) => StaticCredentials) {
  const registry = await FakeRegistry.start({ auth });
  const lines: string[] = [];
  const log = createLogger({ level: 'debug', write: (line) => void lines.push(line) });
  const clock = movableClock();
  const client = testClient({ credentials: credentials?.(registry.host) ?? {}, log, clock });
  const digest = registry.addBlob(randomBytes(1000));
  const blob = await client.blob(imageAt(registry.host), { digest, size: 1000 }, { signal: soon() });
  return {
    registry,
    client,
    clock,
    lines,
    read: () => blob.read(0, 10, { signal: soon() }),
    async [Symbol.asyncDispose]() {
      await client.close();
      await registry.close();
    },
  };
}

function refused(why: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(hasCode(error, 'AUTH_REFUSED'), String(error));
    assert.match(error.message, why);
    assert.ok(!inspect(error, { depth: 10 }).includes('canary'), 'no credential in an error');
    return true;
  };
}

test('a hundred reads that are refused at once lead to one token request', async () => {
  await using fake = await setup({ scheme: 'bearer' });
  fake.registry.inject({ path: /token/, delayMs: 50 });
  await Promise.all(Array.from({ length: 100 }, () => fake.read()));
  assert.equal(fake.registry.count('/token'), 1);
  await fake.read();
  assert.equal(fake.registry.count('/token'), 1, 'the token is kept');
  fake.registry.revokeTokens();
  await Promise.all(Array.from({ length: 100 }, () => fake.read()));
  assert.equal(fake.registry.count('/token'), 2, 'one more when it stops working, for all (F17)');
});

test('only pull of the one repository is asked for, whatever the challenge says', async () => {
  await using fake = await setup({ scheme: 'bearer' });
  await fake.read();
  const asked = fake.registry.requests.find(({ path }) => path.startsWith('/token'))?.path ?? '';
  assert.deepEqual(Object.fromEntries(new URL(asked, 'http://x').searchParams), {
    service: 'fake',
    scope: 'repository:team/app:pull',
  });
});

test('user name and password get a token, and reach the token server only', async () => {
  await using fake = await setup({ scheme: 'bearer', ...LOGIN, password: 'canary-password' }, (host) => ({
    [host]: LOGIN,
  }));
  await fake.read();
  for (const { path, headers } of fake.registry.requests) {
    assert.equal((headers.authorization ?? '').startsWith('Basic'), path.startsWith('/token'), path);
  }
});

test('an identity token is exchanged by POST', async () => {
  await using fake = await setup({ scheme: 'bearer', username: 'x', identityToken: 'canary-refresh' }, (host) => ({
    [host]: { identityToken: 'canary-refresh' },
  }));
  await fake.read();
  const token = fake.registry.requests.find(({ path }) => path.startsWith('/token'));
  assert.deepEqual([token?.method, token?.path], ['POST', '/token']);
});

test('a token is replaced before it expires, and when the registry refuses it', async () => {
  await using fake = await setup({ scheme: 'bearer', expiresInSec: 0.5 });
  await fake.read();
  await new Promise((resolve) => setTimeout(resolve, 420));
  await fake.read();
  assert.equal(fake.registry.count('/token'), 2);
  fake.registry.auth = { scheme: 'bearer' };
  fake.registry.revokeTokens();
  await Promise.all([fake.read(), fake.read()]);
  assert.equal(fake.registry.count('/token'), 3);
});

test('Basic is answered with the configured login, and without one the error says so', async () => {
  await using fake = await setup({ scheme: 'basic', ...LOGIN }, (host) => ({ [host]: LOGIN }));
  await fake.read();
  await using other = await setup({ scheme: 'basic', ...LOGIN }, () => ({ 'elsewhere.example': LOGIN }));
  await assert.rejects(other.read(), refused(/127\.0\.0\.1:\d+ wants a user name and password for team\/app/));
});

test('wrong credentials are refused once, and nothing tells them', async () => {
  for (const scheme of ['bearer', 'basic'] as const) {
    const wrong = { username: 'robot', password: 'canary-wrong' };
    await using fake = await setup({ scheme, ...LOGIN }, (host) => ({ [host]: wrong }));
    await assert.rejects(fake.read(), refused(/401/));
    assert.ok(fake.registry.requests.length <= 3);
    assert.ok(!fake.lines.join('').includes('canary'));
  }
});

test('the next credential is tried when one is refused, by the token server or the registry itself', async () => {
  for (const scheme of ['bearer', 'basic'] as const) {
    await using registry = await FakeRegistry.start({ auth: { scheme, ...LOGIN } });
    const wrong = createStaticCredentials({ [registry.host]: { username: 'robot', password: 'canary-old' } }, 'first');
    const right = createStaticCredentials({ [registry.host]: LOGIN }, 'second');
    await using client = testClient({ sources: [wrong, right] });
    const digest = registry.addBlob(randomBytes(1000));
    const blob = await client.blob(imageAt(registry.host), { digest, size: 1000 }, { signal: soon() });
    registry.inject({ path: /token/, delayMs: 20 });
    await Promise.all(Array.from({ length: 100 }, () => blob.read(0, 10, { signal: soon() })));
    if (scheme === 'bearer') assert.equal(registry.count('/token'), 2, 'one request per credential, whoever waits');
    registry.requests.length = 0;
    await blob.read(0, 10, { signal: soon() });
    assert.equal(registry.requests.length, 1, 'what worked is used on');
  }
});

test('a changed password heals what was refused, and nobody is asked all the time meanwhile', async () => {
  for (const scheme of ['bearer', 'basic'] as const) {
    const login = { ...LOGIN };
    await using registry = await FakeRegistry.start({ auth: { scheme, ...LOGIN } });
    const source: CredentialSource = {
      name: 'file',
      find: async () => [basicCredential(login.username, login.password)],
    };
    await using client = testClient({ sources: [source] });
    const digest = registry.addBlob(randomBytes(1000));
    const blob = await client.blob(imageAt(registry.host), { digest, size: 1000 }, { signal: soon() });
    const read = () => blob.read(0, 10, { signal: soon() });
    await read();
    registry.auth = { scheme, username: 'robot', password: 'canary-changed' };
    registry.revokeTokens();
    await assert.rejects(read(), refused(/401/));
    const asked = registry.requests.length;
    await assert.rejects(read(), refused(/401/));
    assert.equal(registry.requests.length, asked, 'the refusal is still fresh');
    login.password = 'canary-changed';
    client.renewed(imageAt(registry.host));
    await Promise.all(Array.from({ length: 50 }, read));
    registry.auth = { scheme, username: 'robot', password: 'canary-again' };
    registry.revokeTokens();
    await assert.rejects(read(), refused(/401/));
    login.password = 'canary-again';
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    await read();
  }
});

test('a token that ends is replaced while it is still used, by one request, and nobody waits', async () => {
  await using fake = await setup({ scheme: 'bearer', expiresInSec: 1_000 });
  await fake.read();
  fake.clock.ahead(750_000);
  fake.registry.inject({ path: /token/, delayMs: 50 });
  await Promise.all(Array.from({ length: 100 }, () => fake.read()));
  assert.equal(fake.registry.count('/token'), 2);
  const refusals = fake.registry.requests.filter(
    ({ headers, path }) => path.startsWith('/v2/') && !headers.authorization,
  );
  assert.equal(refusals.length, 1, 'only the very first went without');
});

test('a token that has ended is replaced before it is sent', async () => {
  await using fake = await setup({ scheme: 'bearer', expiresInSec: 1_000 });
  await fake.read();
  fake.clock.ahead(1_000_000);
  fake.registry.requests.length = 0;
  await Promise.all(Array.from({ length: 100 }, () => fake.read()));
  assert.equal(fake.registry.count('/token'), 1);
  assert.ok(fake.registry.requests.every(({ path, headers }) => path.startsWith('/token') || headers.authorization));
});

test('a mirror may be lent a token that ends soon, never a password nor another repository’s token', async () => {
  await using fake = await setup({ scheme: 'bearer', ...LOGIN, expiresInSec: 300 }, (host) => ({ [host]: LOGIN }));
  const where = imageAt(fake.registry.host);
  assert.equal(fake.client.pullToken(where), undefined);
  await fake.read();
  assert.equal(fake.client.pullToken(where)?.reveal(), 'Bearer canary-token-1');
  assert.equal(fake.client.pullToken({ ...where, repository: 'team/other' }), undefined);
  await using long = await setup({ scheme: 'bearer', ...LOGIN, expiresInSec: 3_600 }, (host) => ({ [host]: LOGIN }));
  await long.read();
  assert.equal(long.client.pullToken(imageAt(long.registry.host)), undefined);
  await using plain = await setup({ scheme: 'basic', ...LOGIN }, (host) => ({ [host]: LOGIN }));
  await plain.read();
  assert.equal(plain.client.pullToken(imageAt(plain.registry.host)), undefined);
});

test('a token that somebody gave is sent as it is', async () => {
  await using registry = await FakeRegistry.start({ auth: { scheme: 'bearer' } });
  await using donor = testClient();
  const digest = registry.addBlob(randomBytes(1000));
  const where = imageAt(registry.host);
  await (await donor.blob(where, { digest, size: 1000 }, { signal: soon() })).read(0, 10, { signal: soon() });
  const source: CredentialSource = {
    name: 'pulls',
    find: async () => [{ kind: 'registry-token', token: new Secret('canary-token-1') }],
  };
  await using client = testClient({ sources: [source] });
  await (await client.blob(where, { digest, size: 1000 }, { signal: soon() })).read(0, 10, { signal: soon() });
  assert.equal(registry.count('/token'), 1);
});

test('a token server that stumbles is asked again; one that talks nonsense is not believed', async () => {
  await using fake = await setup({ scheme: 'bearer' });
  fake.registry.inject({ path: /token/, status: 503, times: 2 });
  await fake.read();
  assert.equal(fake.registry.count('/token'), 3);
  for (const body of [
    '',
    '[]',
    'null',
    '{"token":1}',
    '{"token":"a\\r\\nx: y"}',
    '{"token":""}',
    `{"token":"${'x'.repeat(20_000)}"}`,
  ]) {
    fake.registry.revokeTokens();
    fake.registry.heal();
    fake.registry.inject({ path: /token/, status: 200, body });
    await assert.rejects(fake.read(), refused(/token server .* did not answer/), body.slice(0, 30));
  }
  fake.registry.heal();
  fake.registry.inject({ path: /token/, redirectTo: 'http://169.254.169.254/' });
  await assert.rejects(fake.read(), refused(/307/));
});

test('no credential leaves for a token server the registry has no business naming', async () => {
  await using thief = await FakeRegistry.start();
  const challenges: (string | string[])[] = [
    'Bearer realm="https://evil.example/token"',
    'Bearer realm="http://evil.example/token"',
    'Bearer realm="http://169.254.169.254/token"',
    'Bearer realm="https://8.8.8.8/token"',
    `Bearer realm="http://localhost.evil.example:${thief.host.split(':')[1]}/token"`,
    `Bearer realm="http://user@${thief.host}/token"`,
    'Bearer realm="file:///etc/passwd"',
    'Bearer realm=""',
    'Bearer service="x"',
    'Negotiate abc=',
    'Digest realm="x"',
    '',
    'Bearer realm="unterminated',
    'Bearer realm="a", realm="b"',
    Array.from({ length: 50 }, () => `Bearer realm="http://${thief.host}/token"`),
    Array.from({ length: 50 }, (_, index) => `Scheme${index} x=y`).join(', '),
    `Bearer realm="http://${thief.host}/${'x'.repeat(20_000)}"`,
  ];
  for (const challenge of challenges) {
    await using fake = await setup({ scheme: 'bearer', challenge }, (host) => ({ [host]: LOGIN }));
    await assert.rejects(
      fake.read(),
      refused(new RegExp(`registry ${fake.registry.host}|header of ${fake.registry.host}`)),
      String(challenge).slice(0, 60),
    );
    assert.ok(fake.registry.requests.every(({ headers }) => headers.authorization === undefined));
  }
  await using flooding = await setup(
    { scheme: 'bearer', challenge: `Bearer realm="${'x'.repeat(1 << 20)}"` },
    (host) => ({ [host]: LOGIN }),
  );
  await assert.rejects(flooding.read(), (error) => hasCode(error, 'REGISTRY_RESPONSE'), 'a header of 1 MiB');
  assert.equal(thief.requests.length, 0);
});

test('credentials do not follow a redirect to another port', async () => {
  await using store = await FakeRegistry.start();
  await using fake = await setup({ scheme: 'basic', ...LOGIN }, (host) => ({ [host]: LOGIN }));
  await fake.read();
  fake.registry.inject({ redirectTo: `http://${store.host}{path}` });
  await assert.rejects(fake.read(), (error) => hasCode(error, 'REGISTRY_RESPONSE') && error.context.status === 404);
  assert.equal(store.requests.length, 1);
  assert.equal(store.requests[0]?.headers.authorization, undefined);
});

test('challenges are parsed as RFC 9110 writes them', () => {
  const parsed = (header: string): unknown =>
    parseChallenges(header, 'h').map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
  assert.deepEqual(parsed('Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"'), [
    ['bearer', { realm: 'https://a/t', service: 's', scope: 'repository:a/b:pull,push' }],
  ]);
  assert.deepEqual(parsed('Basic realm="a \\"b\\", c", Bearer realm=x , scope = "y"'), [
    ['basic', { realm: 'a "b", c' }],
    ['bearer', { realm: 'x', scope: 'y' }],
  ]);
  assert.deepEqual(parsed('Negotiate, NTLM abc+/==, ,Bearer REALM="x"'), [
    ['negotiate', {}],
    ['ntlm', {}],
    ['bearer', { realm: 'x' }],
  ]);
  assert.deepEqual(parsed(''), []);
  for (const bad of ['Bearer realm="x" scope="y"', 'Bearer realm="x', '=', '"a"', 'Bearer realm="x" ; b']) {
    assert.throws(() => parseChallenges(bad, 'host.example'), /host\.example/, bad);
  }
});

test('no header makes the challenge parser throw anything but AUTH_REFUSED, or lose what was quoted', () => {
  const piece = fc.constantFrom('Bearer', 'Basic', ' ', ',', '=', '"', '\\', 'realm', 'x', '/', 'abc==', 'realm="x"');
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 20 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (header) => {
      try {
        parseChallenges(header, 'h');
      } catch (error) {
        assert.ok(error instanceof ShoalError && error.code === 'AUTH_REFUSED', String(error));
      }
    }),
    { numRuns: 2000 },
  );
  fc.assert(
    fc.property(fc.string({ maxLength: 50 }), fc.string({ maxLength: 50 }), (realm, scope) => {
      const quote = (value: string): string => `"${value.replace(/[\\"]/g, '\\$&')}"`;
      const [challenge] = parseChallenges(`Bearer realm=${quote(realm)}, scope=${quote(scope)}`, 'h');
      assert.deepEqual([challenge?.parameters.get('realm'), challenge?.parameters.get('scope')], [realm, scope]);
    }),
  );
});
