import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { systemClock } from '../../src/clock.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { decodeLayerIndex, encodeLayerIndex } from '../../src/image/layer-index/layer-index.ts';
import { parseManifest } from '../../src/image/manifest.ts';
import { parseReference } from '../../src/image/reference.ts';
import { silentLogger } from '../../src/log.ts';
import { chainCredentials } from '../../src/source/origin/credentials.ts';
import { fetchIndex, listIndexes, pushIndexes } from '../../src/source/origin/index-artifact.ts';
import { createRegistryClient } from '../../src/source/origin/registry-client.ts';
import { createRegistryPusher } from '../../src/source/origin/registry-pusher.ts';
import { createUrlPolicy } from '../../src/source/url-policy.ts';
import { diffIdOf } from '../image/pass/pass-lab.ts';
import { tarOf } from '../image/tar/tar-lab.ts';
import { run } from '../lab/process.ts';
import { startRegistry } from '../lab/registry.ts';
import { SHOAL_MAIN } from '../lab/shoal.ts';
import { whyNot, withDirectory } from './node-lab.ts';
import { putBlob, putImage } from './registry-content.ts';

const skip = await whyNot('docker-registry');
const { signal } = new AbortController();

test('an index is built, pushed, listed and verified, and a forged one is found out', { skip }, async (t) => {
  await withDirectory(async (dir) => {
    await mkdir(join(dir, 'storage'));
    const lab = await startRegistry({ workDir: dir, storage: join(dir, 'storage') });
    const parts = {
      policy: createUrlPolicy(),
      credentials: chainCredentials([]),
      log: silentLogger,
      clock: systemClock,
    };
    const client = createRegistryClient(parts);
    const pusher = createRegistryPusher(parts);
    try {
      const files = Array.from({ length: 40 }, (_, at) => ({ path: `f${at}`, data: randomBytes(100_000) }));
      const layer = gzipSync(tarOf(files));
      const small = gzipSync(tarOf([{ path: 'small', data: randomBytes(10) }]));
      const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
      const layers = await Promise.all(
        [layer, small].map(async (bytes) => ({
          mediaType,
          digest: await putBlob(lab, 'app', bytes),
          size: bytes.byteLength,
        })),
      );
      const config = { architecture: process.arch === 'arm64' ? 'arm64' : 'amd64', os: 'linux' };
      const diffIds = [diffIdOf(layer), diffIdOf(small)];
      await putImage(lab, 'app:1', { layers, diffIds, config });
      const reference = `${lab.host}/app:1`;
      const shoal = (...args: string[]) =>
        run(process.execPath, [SHOAL_MAIN, 'index', ...args, reference, '--root', join(dir, 'root')], {
          allowFailure: true,
        });

      await t.test('none is there at first', async () => {
        const { status, stdout, stderr } = await shoal('list');
        assert.deepEqual([status, stdout], [0, 'no indexes\n'], stderr);
      });

      await t.test('build --push stores one for the layer that is worth it', async () => {
        const { status, stdout, stderr } = await shoal('build', '--push');
        assert.equal(status, 0, stderr);
        assert.match(stdout, /tar\.gz[\s\S]*small: it is fetched whole[\s\S]*pushed .*app@sha256:/);
        assert.match((await shoal('build')).stdout, /was built before/);
        assert.match((await shoal('list')).stdout, new RegExp(layers[0]?.digest.slice(0, 19) ?? ''));
      });

      await t.test('verify says it is true', async () => {
        const { status, stdout, stderr } = await shoal('verify');
        assert.equal(status, 0, stdout + stderr);
        assert.match(stdout, /true/);
      });

      await t.test('verify finds an index that names other content', async () => {
        const where = parseReference(reference);
        const image = await client.manifest(where, undefined, { signal });
        const manifest = parseManifest(image.bytes);
        assert.equal(manifest.kind, 'manifest');
        if (manifest.kind !== 'manifest') return;
        const [pushed] = await listIndexes(client, where, manifest.digest, { signal });
        assert.ok(pushed !== undefined);
        const index = decodeLayerIndex(await fetchIndex(client, where, pushed, { signal }));
        const forged = encodeLayerIndex({ ...index, chunks: withOtherDigest(index.chunks) });
        const indexes = [{ layer: pushed.layer, bytes: forged }];
        await pushIndexes({ client, pusher }, where, { image: { manifest, bytes: image.bytes }, indexes }, { signal });
        assert.equal((await listIndexes(client, where, manifest.digest, { signal })).length, 2);
        const { status, stdout } = await shoal('verify');
        assert.equal(status, 1);
        assert.match(stdout, /FALSE: other content/);
      });
    } finally {
      await pusher.close();
      await client.close();
      await lab.stop();
    }
  });
});

/** The same table with one digest changed. */
function withOtherDigest(chunks: ReturnType<typeof decodeLayerIndex>['chunks']) {
  const builder = new ChunkTableBuilder({ compressedSize: chunks.compressedSize });
  for (let index = 0; index < chunks.count; index += 1) {
    const { deviceOffset, length, extent, innerOffset } = chunks.row(index);
    const { offset, length: extentLength, codec, checkpoint } = chunks.extent(extent);
    const digest = Uint8Array.from(chunks.digestBytesAt(index));
    if (index === 3) digest[0] = (digest[0] as number) ^ 1;
    builder.addRaw(
      { deviceOffset, length, extentOffset: offset, extentLength, codec, innerOffset, checkpoint },
      digest,
    );
  }
  return builder.build();
}
