import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { hostPlatform } from '../../../src/image/platform.ts';
import { parseReference } from '../../../src/image/reference.ts';
import { fetchImage } from '../../../src/source/origin/fetch-image.ts';
import { whyNot } from '../../e2e/node-lab.ts';
import { RealRegistry } from '../../fakes/registry-real.ts';
import { startCachingMirror, startTlsMirror } from '../../lab/nginx.ts';
import { startMirrorLab } from './mirror-lab.ts';

const skip = (await whyNot('nginx', 'docker-registry', 'skopeo')) || false;
const LAYOUT = fileURLToPath(new URL('../../fixtures/small/oci-targz', import.meta.url));

test('nginx as a caching mirror of docker-registry: read through it, with the registry gone, and past it', {
  skip,
}, async () => {
  await using registry = await RealRegistry.start();
  await registry.push(LAYOUT, 'team/real', '1');
  const dir = await mkdtemp(join(tmpdir(), 'shoal-nginx-'));
  const nginx = await startCachingMirror({ dir, upstream: registry.host });
  try {
    await using lab = await startMirrorLab();
    await lab.hostsOf(registry.host, `[host."${nginx.url}"]\n`);
    const options = (): { signal: AbortSignal } => ({ signal: AbortSignal.timeout(10_000) });
    const platform = hostPlatform(process.arch);
    const reference = parseReference(`${registry.host}/team/real:1`);
    const image = await fetchImage(lab.client, reference, { platform, ...options() });
    const layer = image.manifest.layers[0];
    assert.ok(layer !== undefined);
    const blob = await lab.client.blob(reference, layer, options());
    const expected = await readFile(join(LAYOUT, 'blobs/sha256', layer.digest.slice('sha256:'.length)));
    const whole = await blob.read(0, blob.size, options());
    assert.ok(expected.equals(whole));
    const log = await readFile(join(dir, 'access.log'), 'utf8');
    assert.match(log, /GET \/v2\/team\/real\/manifests\/1\?ns=127\.0\.0\.1/);
    assert.match(log, /GET \/v2\/team\/real\/blobs\/sha256:[0-9a-f]{64}\?ns=.* 206 /);

    await registry.close();
    assert.ok(expected.equals(await blob.read(0, blob.size, options())), 'F14: the mirror has all of it');
    await nginx.stop();
    await assert.rejects(blob.read(0, 10, options()), /ECONNREFUSED/);
  } finally {
    await nginx.stop();
    await rm(dir, { recursive: true, force: true });
  }
});

test('a mirror with a certificate of its own: ca, client pairs, skip_verify', {
  skip: (await whyNot('openssl', 'nginx')) || false,
}, async () => {
  const dir = await mkdtemp(join(tmpdir(), 'shoal-tls-'));
  try {
    await using lab = await startMirrorLab();
    const tls = await startTlsMirror(dir, lab.registry.host);
    try {
      const entry = `[host."${tls.url}"]\nfailure_limit = 1000\n`;
      const pair = `client = [["${dir}/client.crt", "${dir}/client.key"]]\n`;
      const cases: [keys: string, served: boolean][] = [
        ['', false],
        [pair, false],
        [`ca = "${dir}/ca.crt"\n`, false],
        [`ca = ["${dir}/ca.crt"]\n${pair}`, true],
        [`skip_verify = true\n${pair}`, true],
      ];
      for (const [index, [keys, served]] of cases.entries()) {
        await lab.hosts(entry + keys);
        await new Promise((resolve) => setTimeout(resolve, 600));
        const before = lab.mirror.chunks;
        await lab.read(index);
        assert.equal(lab.mirror.chunks > before, served, keys);
      }
    } finally {
      await tls.stop();
    }
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
