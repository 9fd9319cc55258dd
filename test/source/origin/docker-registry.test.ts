import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import { hostPlatform } from '../../../src/image/platform.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import { RealRegistry } from '../../fakes/registry-real.ts';
import { imageAt, soon, testClient } from './setup.ts';

const fixture = (name: string): string => fileURLToPath(new URL(`../../fixtures/small/${name}`, import.meta.url));
const skip = (await RealRegistry.available()) ? false : 'needs docker-registry and skopeo';
// bcrypt of "open sesame".
const HTPASSWD = 'ali:$2y$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n';

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
  await registry.push(fixture('oci-estargz'), 'team/app', '1', 'ali:open sesame');
  const reference = imageAt(registry.host);
  const signal = soon(30_000);
  await using stranger = testClient();
  await assert.rejects(stranger.resolve(reference, { signal }), (error) => hasCode(error, 'AUTH_REFUSED'));
  await using client = testClient({ credentials: { [registry.host]: { username: 'ali', password: 'open sesame' } } });
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
