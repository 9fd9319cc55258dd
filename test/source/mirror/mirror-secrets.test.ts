import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger } from '../../../src/log.ts';
import { ownsSecrets } from '../../canary/owner.ts';
import { FakeDragonfly } from '../../fakes/dragonfly.ts';
import { startMirrorLab } from './mirror-lab.ts';

const PASSWORD = 'canary-password-7f3a';
const USER = 'canary-user-7f3a';

/** Every header a mirror may ever see. */
const ALLOWED = new Set([
  'host',
  'connection',
  'user-agent',
  'accept',
  'accept-encoding',
  'range',
  'x-dragonfly-registry',
  'x-dragonfly-use-p2p',
  'x-dragonfly-prefetch',
  'x-dragonfly-priority',
  'x-dragonfly-enable-task-id-based-blob-digest',
  'x-dragonfly-tag',
  'x-dragonfly-application',
]);

test('S8, S9: a mirror of a registry with credentials never sees one, nor a header that is not on the list', async () => {
  await using double = await FakeDragonfly.start();
  const lines: string[] = [];
  await using lab = await startMirrorLab({
    auth: { scheme: 'bearer', username: USER, password: PASSWORD },
    credentials: (host) => ({ [host]: { username: USER, password: PASSWORD } }),
    log: createLogger({ level: 'debug', write: (line) => void lines.push(line) }),
    chains: { dragonfly: { tag: 'team-a', application: 'shoal', prefetch: false } },
  });
  await lab.hosts(`[host."${double.url}"]
[host."${double.url}".header]
X-Dragonfly-Registry = "http://${lab.registry.host}"
X-Dragonfly-Output-Path = "/etc/passwd"
Authorization = "Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}"
Cookie = "a=${PASSWORD}"
X-Forwarded-For = "10.0.0.1"
`);
  const signal = AbortSignal.timeout(20_000);
  const where = { registry: lab.registry.host, repository: 'team/app' };
  for (const index of lab.refs.keys()) await lab.read(index);
  await lab.client.blobTail(where, lab.blob.digest, 1_000, { signal });
  // A mirror that asks for a password, and one that names a token server of its own.
  for (const challenge of ['Basic realm="give"', `Bearer realm="${double.url}/token",service="x"`]) {
    double.inject({ status: 401, path: '/v2/', headers: { 'www-authenticate': challenge } });
    const blob = await lab.client.blob(where, { digest: lab.blob.digest }, { signal });
    await blob.read(0, 1_000, { signal });
    double.heal();
  }
  assert.ok(double.requests.length > 0);
  assert.equal(lab.mirror.chunks, 0, 'the registry wants credentials, the mirror has none');
  assert.equal(lab.origin.chunks, lab.refs.length);
  const secrets = [PASSWORD, USER, Buffer.from(`${USER}:${PASSWORD}`).toString('base64'), 'canary-token'];
  const seen = JSON.stringify(double.requests) + lines.join('\n');
  for (const secret of secrets) assert.ok(!seen.includes(secret), secret);
  for (const { url, headers } of double.requests) {
    assert.ok(!url.includes('/token'), 'no challenge of a mirror is answered');
    for (const name of Object.keys(headers)) assert.ok(ALLOWED.has(name), name);
  }
  assert.equal(double.blobRequests()[0]?.headers['x-dragonfly-tag'], 'team-a');
});

test('S9: what a redirect of a mirror leads to sees no header of ours, and only public https hosts are followed', async () => {
  await using double = await FakeDragonfly.start();
  await using other = await FakeDragonfly.start();
  await using lab = await startMirrorLab();
  await lab.hosts(
    `[host."${double.url}"]\nfailure_limit = 100\n[host."${double.url}".header]\nX-Dragonfly-Registry = "http://${lab.registry.host}"\nX-Own = "secret-of-the-mirror"\n`,
  );
  const targets = [
    `${other.url}/v2/x`,
    'http://169.254.169.254/latest/meta-data',
    'https://127.0.0.1:1/x',
    'https://10.0.0.1/x',
    'file:///etc/passwd',
    'https://metadata.localhost/x',
  ];
  for (const [index, location] of targets.entries()) {
    double.inject({ times: 1, status: 307, headers: { location } });
    await lab.read(index);
  }
  assert.equal(other.requests.length, 0);
  assert.equal(double.blobRequests().length, targets.length);
  assert.equal(lab.origin.chunks, targets.length);
});

test('S8: switched on, a mirror gets the pull token of the repository, if it ends within five minutes; never the password', async () => {
  for (const [expiresInSec, lent] of [
    [240, true],
    [3_600, false],
  ] as const) {
    await using double = await FakeDragonfly.start();
    await using lab = await startMirrorLab({
      auth: { scheme: 'bearer', username: USER, password: PASSWORD, expiresInSec },
      credentials: (host) => ({ [host]: { username: USER, password: PASSWORD } }),
      pullToken: (client) => (registry, repository) => client().pullToken({ registry, repository }),
    });
    if (lent) ownsSecrets(new URL(double.url).host);
    await lab.hosts(`[host."${double.url}".header]\nX-Dragonfly-Registry = "http://${lab.registry.host}"\n`);
    await lab.read(0);
    assert.equal(lab.origin.chunks, 1, 'there was no token yet');
    await sleep(1_100);
    await lab.read(1);
    assert.equal(lab.mirror.chunks, lent ? 1 : 0);
    const seen = double.requests.map(({ headers }) => headers.authorization ?? 'none');
    assert.deepEqual([...new Set(seen)], lent ? ['none', 'Bearer canary-token-1'] : ['none']);
    assert.ok(!JSON.stringify(double.requests).includes(PASSWORD));
  }
});
