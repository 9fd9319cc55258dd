import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasCode } from '../../../src/errors.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { FakeDragonfly } from '../../fakes/dragonfly.ts';
import { FakeRegistry } from '../../fakes/registry.ts';
import { type MirrorLab, startMirrorLab } from './mirror-lab.ts';

const TYPE = 'application/vnd.oci.image.manifest.v1+json';
const soon = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(10_000) });

/** A lab whose registry has an image, with a plain mirror that has the same one under the same name. */
async function withMirror(use: (lab: MirrorLab, mirror: FakeRegistry) => Promise<void>, keys = ''): Promise<void> {
  await using mirror = await FakeRegistry.start();
  await using lab = await startMirrorLab();
  await lab.hosts(`[host."http://${mirror.host}"]\n${keys}\n`);
  const manifest = { schemaVersion: 2, mediaType: TYPE, layers: [] };
  for (const each of [mirror, lab.registry]) {
    each.addManifest('team/app', '1', manifest);
    each.addBlob(lab.blob.compressed);
  }
  await use(lab, mirror);
}

/** Strips the query, as a mirror does; the double compares whole paths. */
function asked(registry: FakeRegistry): string[] {
  return registry.requests.map(({ method, path }) => `${method} ${path}`);
}

test('manifests, tags, sizes and ends of blobs come from the mirror, with the registry named in ns', async () => {
  await withMirror(async (lab, mirror) => {
    const reference = parseReference(`${lab.registry.host}/team/app:1`);
    const { digest } = await lab.client.resolve(reference, soon());
    const { bytes } = await lab.client.manifest(reference, digest, soon());
    assert.ok(bytes.byteLength > 0);
    const blob = await lab.client.blob(reference, { digest: lab.blob.digest }, soon());
    assert.equal(blob.size, lab.blob.compressed.byteLength);
    assert.deepEqual(Buffer.from(await blob.read(5, 100, soon())), Buffer.from(lab.blob.compressed.subarray(5, 105)));
    await lab.client.blobTail(reference, lab.blob.digest, 100, soon());
    assert.equal(lab.registry.requests.length, 0);
    assert.ok(asked(mirror).every((line) => line.endsWith(`?ns=${encodeURIComponent(lab.registry.host)}`)));
  });
});

test('capabilities are kept to: without resolve a tag is the registry’s to say, without pull everything else', async () => {
  await withMirror(async (lab, mirror) => {
    const reference = parseReference(`${lab.registry.host}/team/app:1`);
    const { digest } = await lab.client.resolve(reference, soon());
    await lab.client.manifest(reference, undefined, soon());
    assert.equal(mirror.requests.length, 0);
    await lab.client.manifest(reference, digest, soon());
    assert.equal(mirror.requests.length, 1);
  }, 'capabilities = ["pull"]');
  await withMirror(async (lab, mirror) => {
    const reference = parseReference(`${lab.registry.host}/team/app:1`);
    const { digest } = await lab.client.resolve(reference, soon());
    const before = mirror.requests.length;
    assert.ok(before > 0);
    await lab.client.manifest(reference, digest, soon());
    assert.equal(mirror.requests.length, before);
  }, 'capabilities = ["resolve"]');
});

test('a mirror that lies about a manifest is found out, and the registry asked', async () => {
  await withMirror(async (lab, mirror) => {
    const reference = parseReference(`${lab.registry.host}/team/app:1`);
    const { digest } = await lab.client.resolve(reference, soon());
    mirror.inject({ path: /manifests/, corrupt: true });
    const { bytes } = await lab.client.manifest(reference, digest, soon());
    assert.deepEqual(JSON.parse(Buffer.from(bytes).toString()).mediaType, TYPE);
    assert.ok(lab.registry.requests.length > 0);
  });
});

test('what neither has is the registry’s to say', async () => {
  await withMirror(async (lab) => {
    const reference = parseReference(`${lab.registry.host}/team/none:1`);
    await assert.rejects(
      lab.client.manifest(reference, undefined, soon()),
      (error) =>
        hasCode(error, 'REGISTRY_RESPONSE') &&
        error.context.status === 404 &&
        error.message.includes(lab.registry.host),
    );
  });
});

test('override_path, own headers and more than one path are honoured', async () => {
  await using mirror = await FakeRegistry.start();
  await using lab = await startMirrorLab();
  mirror.inject({ status: 404 });
  await lab.hosts(
    `[host."http://${mirror.host}/v2/cache/hub"]\noverride_path = true\n[host."http://${mirror.host}/v2/cache/hub".header]\nX-Team = ["a", "b"]\n`,
  );
  await lab.read(0);
  const [request] = mirror.requests;
  assert.match(request?.path ?? '', /^\/v2\/cache\/hub\/team\/app\/blobs\/sha256:/);
  assert.equal(request?.headers['x-team'], 'a, b');
});

test('a range that a mirror cuts short is read from the registry', async () => {
  await using double = await FakeDragonfly.start();
  await using lab = await startMirrorLab();
  await lab.hosts(`[host."${double.url}".header]\nX-Dragonfly-Registry = "http://${lab.registry.host}"\n`);
  const where = { registry: lab.registry.host, repository: 'team/app' };
  const blob = await lab.client.blob(where, { digest: lab.blob.digest, size: lab.blob.compressed.byteLength }, soon());
  double.inject({ truncateAt: 100 });
  assert.deepEqual(Buffer.from(await blob.read(0, 5_000, soon())), Buffer.from(lab.blob.compressed.subarray(0, 5_000)));
});
