import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import { hostPlatform } from '../../../src/image/platform.ts';
import { basicCredential, type CredentialSource } from '../../../src/source/origin/credentials.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import { RealRegistry } from '../../fakes/registry-real.ts';
import { makeCertificate, TokenServer } from '../../fakes/token-server.ts';
import { imageAt, soon, testClient } from './setup.ts';

const fixture = (name: string): string => fileURLToPath(new URL(`../../fixtures/small/${name}`, import.meta.url));
const skip = (await RealRegistry.available()) ? false : 'needs docker-registry and skopeo';
// bcrypt of "canary-first".
const HTPASSWD = 'ali:$2b$05$G3Chy9CTgBMNJyV/keINbepTdx5KkwUB0z5Mn1cafXOmYElfnJGUu\n';

test('images in all formats come out of docker-registry as they went in', { skip }, async () => {
  await using registry = await RealRegistry.start();
  await using client = testClient();
  const signal = soon(30_000);
  const reference = imageAt(registry.host);
  for (const name of ['oci-estargz', 'oci-targz', 'oci-zstdchunked']) {
    await registry.push(fixture(name), 'team/app', '1');
    const image = await fetchImage(client, reference, { platform: hostPlatform('x64'), signal });
    assert.equal((await client.resolve(reference, { signal })).digest, image.digest);
    await client.config(reference, image.manifest.config, { signal });
    for (const layer of image.manifest.layers) {
      const blob = await client.blob(reference, { digest: layer.digest }, { signal });
      assert.equal(blob.size, layer.size);
      const parts: Uint8Array[] = [];
      for (let offset = 0; offset < blob.size; offset += 777_777) {
        parts.push(await blob.read(offset, Math.min(777_777, blob.size - offset), { signal }));
      }
      assert.equal(sha256(Buffer.concat(parts)), layer.digest);
      const tail = await client.blobTail(reference, layer.digest, 1000, { signal });
      assert.deepEqual([tail.offset, tail.size], [layer.size - 1000, layer.size]);
      assert.deepEqual(Buffer.from(tail.bytes), Buffer.concat(parts).subarray(-1000));
    }
  }
});

test('docker-registry behind a password is read with it, and not without', { skip }, async () => {
  await using registry = await RealRegistry.start({ htpasswd: HTPASSWD });
  await registry.push(fixture('oci-estargz'), 'team/app', '1', 'ali:canary-first');
  const reference = imageAt(registry.host);
  const signal = soon(30_000);
  await using stranger = testClient();
  await assert.rejects(stranger.resolve(reference, { signal }), (error) => hasCode(error, 'AUTH_REFUSED'));
  await using client = testClient({ credentials: { [registry.host]: { username: 'ali', password: 'canary-first' } } });
  const image = await fetchImage(client, reference, { platform: hostPlatform('x64'), signal });
  assert.equal(image.manifest.layers.length, 2);
});

test('what docker-registry does not have is a 404', { skip }, async () => {
  await using registry = await RealRegistry.start();
  await using client = testClient();
  const missing = { digest: sha256('missing') };
  for (const ask of [
    () => client.resolve(imageAt(registry.host), { signal: soon() }),
    () => client.manifest(imageAt(registry.host), undefined, { signal: soon() }),
    () => client.blob(imageAt(registry.host), missing, { signal: soon() }),
    () => client.blobTail(imageAt(registry.host), missing.digest, 10, { signal: soon() }),
  ]) {
    await assert.rejects(ask(), (error) => hasCode(error, 'REGISTRY_RESPONSE') && error.context.status === 404);
  }
});

test('docker-registry with TLS and a token server: one token for a hundred reads, renewed, and a changed password heals', {
  skip,
}, async () => {
  await using certificate = await makeCertificate();
  await using server = await TokenServer.start(certificate);
  await using registry = await RealRegistry.start({ tls: certificate, token: server });
  const login = { username: server.username, password: server.password };
  await registry.push(fixture('oci-estargz'), 'team/app', '1', `${login.username}:${login.password}`);
  server.requests.length = 0;
  const reference = imageAt(registry.host);
  const policy = { registries: { [registry.host]: { plainHttp: false } } };
  const init = { ca: certificate.cert };
  const signal = soon(60_000);

  await using stranger = testClient({ policy, init });
  await assert.rejects(stranger.resolve(reference, { signal }), (error) => hasCode(error, 'AUTH_REFUSED'));
  await using distrustful = testClient({ policy });
  await assert.rejects(distrustful.resolve(reference, { signal }), /TLS certificate/);

  const source: CredentialSource = {
    name: 'file',
    find: async () => [basicCredential(login.username, login.password)],
  };
  server.requests.length = 0;
  await using client = testClient({ policy, init, sources: [source] });
  const image = await fetchImage(client, reference, { platform: hostPlatform('x64'), signal });
  const [layer] = image.manifest.layers;
  assert.ok(layer !== undefined);
  const blob = await client.blob(reference, layer, { signal });
  const read = () => blob.read(0, 100, { signal });
  const readAll = () => Promise.all(Array.from({ length: 100 }, read));
  await readAll();
  assert.equal(server.requests.length, 1, 'a token serves all');

  // The registry stops believing it: as if it had ended too early. All notice at once.
  server.expiresInSec = 2;
  client.renewed(reference);
  await using impatient = testClient({ policy, init, sources: [source] });
  const other = await impatient.blob(reference, layer, { signal });
  await other.read(0, 100, { signal });
  const asked = server.requests.length;
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  server.expiresInSec = 300;
  await Promise.all(Array.from({ length: 100 }, () => other.read(0, 100, { signal })));
  assert.equal(server.requests.length, asked + 1, 'one renewal for a hundred readers');

  server.password = 'canary-changed';
  await using late = testClient({ policy, init, sources: [source] });
  await assert.rejects(late.resolve(reference, { signal }), (error) => hasCode(error, 'AUTH_REFUSED'));
  login.password = 'canary-changed';
  late.renewed(reference);
  assert.equal((await late.resolve(reference, { signal })).digest, image.digest);
});
