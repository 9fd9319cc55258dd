import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { inspect } from 'node:util';
import { systemClock } from '../../../src/clock.ts';
import { parseConfig } from '../../../src/config.ts';
import { ShoalError } from '../../../src/errors.ts';
import { hostPlatform } from '../../../src/image/platform.ts';
import type { Reference } from '../../../src/image/reference.ts';
import { createGivenCredentials } from '../../../src/lazy/given-credentials.ts';
import { createConfiguredRegistry } from '../../../src/lazy/registry.ts';
import { createLogger } from '../../../src/log.ts';
import { basicCredential } from '../../../src/source/origin/credentials.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import type { RegistryClient } from '../../../src/source/origin/registry-client.ts';
import { ownsSecrets } from '../../canary/owner.ts';
import { startRecordingProxy } from '../../fakes/recording-proxy.ts';
import { FakeRegistry } from '../../fakes/registry.ts';
import { RealRegistry } from '../../fakes/registry-real.ts';
import { imageAt, soon } from './setup.ts';

const skip = (await RealRegistry.available()) ? false : 'needs docker-registry and skopeo';
const LAYOUT = fileURLToPath(new URL('../../fixtures/small/oci-estargz', import.meta.url));
const USER = 'ali';
// bcrypt of "canary-first" under this name.
const HTPASSWD = `${USER}:$2b$05$G3Chy9CTgBMNJyV/keINbepTdx5KkwUB0z5Mn1cafXOmYElfnJGUu\n`;
const RIGHT = 'canary-first';
const SECRETS = [
  RIGHT,
  'canary-wrong',
  'canary-docker',
  'canary-plugin',
  'canary-secret',
  'canary-file',
  'canary-refresh',
];
const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** Every way a secret could be written. */
function forms(secret: string): string[] {
  const logins = [`${USER}:${secret}`, `AWS:${secret}`].map(base64);
  return [secret, base64(secret), encodeURIComponent(secret), Buffer.from(secret).toString('hex'), ...logins];
}

function sightings(text: string): string[] {
  return SECRETS.filter((secret) => forms(secret).some((form) => text.includes(form)));
}

/** A node's configuration with a secret in every place there is. */
async function configuration(folder: string, hosts: { own: string; store: string; fake: string }): Promise<string> {
  const write = (name: string, text: string, mode = 0o600) => writeFile(join(folder, name), text, { mode });
  const auths = {
    [hosts.fake]: { auth: base64(`${USER}:canary-docker`) },
    'id.example': { identitytoken: 'canary-refresh' },
  };
  await write('config.json', JSON.stringify({ auths }));
  await write('password', 'canary-file\n');
  await mkdir(join(folder, 'plugins'));
  const answer = {
    ...{ kind: 'CredentialProviderResponse', apiVersion: 'credentialprovider.kubelet.k8s.io/v1' },
    ...{ cacheKeyType: 'Registry', auth: { [hosts.own]: { username: 'AWS', password: 'canary-plugin' } } },
  };
  await write('plugins/ecr', `#!/bin/sh\necho '${JSON.stringify(answer)}'\n`, 0o755);
  const provider = {
    ...{ name: 'ecr', matchImages: [hosts.own], defaultCacheDuration: '1h' },
    apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
  };
  const providers = { apiVersion: 'kubelet.config.k8s.io/v1', kind: 'CredentialProviderConfig', providers: [provider] };
  await write('providers.yaml', JSON.stringify(providers));
  await mkdir(join(folder, 'secrets/one'), { recursive: true });
  const pullSecret = { auths: { [hosts.own]: { username: USER, password: 'canary-secret' } } };
  await write('secrets/one/.dockerconfigjson', JSON.stringify(pullSecret));
  return `[auth]
docker_config = "${folder}/config.json"
kubelet_provider_config = "${folder}/providers.yaml"
kubelet_provider_dir = "${folder}/plugins"
kubernetes_secrets = "${folder}/secrets"
[fetch]
retry_budget_ms = 300
[registry."${hosts.own}"]
username = "${USER}"
password_file = "${folder}/password"
`;
}

/** Pulls the image and reads of each layer, as the daemon would; gives the error when that fails. */
async function pull(client: RegistryClient, where: Reference): Promise<unknown> {
  try {
    const image = await fetchImage(client, where, { platform: hostPlatform('x64'), signal: soon() });
    for (const layer of image.manifest.layers) {
      await (await client.blob(where, layer, { signal: soon() })).read(0, 100, { signal: soon() });
    }
    return undefined;
  } catch (error) {
    return error;
  }
}

test('no secret reaches another host, the log, an error or the configuration shown (S8)', { skip }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-secrets-'));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const behind = stack.use(await RealRegistry.start({ htpasswd: HTPASSWD }));
  await behind.push(LAYOUT, 'team/app', '1', `${USER}:${RIGHT}`);
  const open = stack.use(await RealRegistry.start());
  await open.push(LAYOUT, 'team/app', '1');
  const fake = stack.use(await FakeRegistry.start());
  fake.addOciLayout(LAYOUT, 'team/app', '1');
  const own = stack.use(await startRecordingProxy(behind.host));
  ownsSecrets(own.host);
  // What others hear: another registry, the store that redirects lead to, a thief.
  const other = stack.use(await startRecordingProxy(open.host));
  const store = stack.use(await startRecordingProxy(open.host));

  const text = await configuration(folder, { own: own.host, store: store.host, fake: fake.host });
  const config = parseConfig(text, { name: 'c.toml' });
  const lines: string[] = [];
  const write = (line: string): void => void lines.push(line);
  const errors: unknown[] = [];
  const given = createGivenCredentials((where) => client.renewed(where));
  const parts = { log: createLogger({ level: 'debug', write }), clock: systemClock, given: given.sources };
  const client = createConfiguredRegistry(config, parts);
  stack.defer(() => client.close());

  // All but the right one, in every source; then the right one.
  given.labels.remember(own.host, 'team/app', basicCredential(USER, 'canary-wrong'));
  errors.push(await pull(client, imageAt(own.host)));
  assert.ok(errors[0] instanceof ShoalError && errors[0].code === 'AUTH_REFUSED', String(errors[0]));
  given.pulls.remember(own.host, 'team/app', basicCredential(USER, RIGHT));
  assert.equal(await pull(client, imageAt(own.host)), undefined);
  assert.equal(await pull(client, imageAt(other.host)), undefined);

  // A registry that wants Basic and misbehaves in every way.
  const challenge = 'Basic realm="x"';
  for (const auth of [
    { scheme: 'basic', username: USER, password: 'canary-docker' },
    { scheme: 'bearer', username: USER, password: 'canary-docker' },
    { scheme: 'basic', username: USER, password: 'canary-other', challenge },
    { scheme: 'bearer', realm: `http://localhost.evil.example:${store.host.split(':')[1]}/token` },
    { scheme: 'bearer', realm: 'https://evil.example/token' },
  ] as const) {
    fake.auth = auth;
    for (const fault of [
      {},
      { redirectTo: `http://${store.host}{path}`, path: /blobs/ },
      { redirectTo: `http://${store.host}{path}?token=not-a-secret`, path: /manifests/ },
      { status: 403 },
      { status: 500 },
      { truncateAt: 10 },
      { reset: true },
      { path: /token/, status: 400, body: 'not-a-secret' },
    ]) {
      fake.inject(fault);
      client.renewed(imageAt(fake.host));
      errors.push(await pull(client, imageAt(fake.host)));
      fake.heal();
    }
  }
  // Sources that break.
  await writeFile(join(folder, 'config.json'), '{"auths": canary-docker');
  await writeFile(join(folder, 'secrets/one/.dockerconfigjson'), 'canary-secret');
  await writeFile(join(folder, 'plugins/ecr'), '#!/bin/sh\necho canary-plugin; echo canary-plugin >&2; exit 1\n');
  fake.auth = { scheme: 'basic', username: USER, password: 'canary-new' };
  client.renewed(imageAt(fake.host));
  errors.push(await pull(client, imageAt(fake.host)));

  assert.ok(own.text().includes(base64(`${USER}:${RIGHT}`)), 'the recorder sees what is there to be seen');
  assert.ok(other.text().includes('GET /v2/') && store.text().includes('GET /v2/'), 'the others were asked');
  assert.ok(errors.filter((error) => error instanceof ShoalError).length > 20);
  assert.ok(lines.length > 10);
  const shown = errors.map((error) => `${inspect(error, { depth: 12, showHidden: true })} ${(error as Error)?.stack}`);
  const places = {
    'another registry': other.text(),
    'where redirects lead': store.text(),
    'the log': lines.join(''),
    'an error': shown.join('\n'),
    'the configuration': inspect(config, { depth: 9 }) + JSON.stringify(config),
  };
  for (const [place, seen] of Object.entries(places)) assert.deepEqual(sightings(seen), [], place);
});
