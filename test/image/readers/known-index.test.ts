import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../../src/core/digest.ts';
import { hasCode } from '../../../src/errors.ts';
import type { LayerIndexBytes } from '../../../src/image/layer-reader.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { indexDigestOf } from '../../../src/image/readers/index-digest.ts';
import { encodeTree } from '../../../src/image/tree-codec.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { fixtureLayers } from '../../fakes/oci-layout.ts';

const signal = AbortSignal.timeout(60_000);
const TAIL_BYTES = 4 * 1024;

for (const format of ['oci-estargz', 'oci-zstdchunked'] as const) {
  test(`an index of ${format} that is known by its digest is not read from the layer again`, async () => {
    for (const { descriptor, bytes } of await fixtureLayers(`small/${format}`)) {
      const digest = indexDigestOf(descriptor);
      assert.ok(digest !== undefined);
      let kept: Uint8Array | undefined;
      const keep = (found: Uint8Array): void => {
        kept = found;
      };
      const index: LayerIndexBytes = { digest, bytes: undefined, keep };
      const first = await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal, index });
      assert.ok(kept !== undefined && sha256(kept) === digest, 'what is kept hashes to the digest');

      const blob = new MemoryBlob(bytes, descriptor.digest);
      const known = { digest, bytes: kept, keep: () => assert.fail('nothing new') };
      const again = await readLayer(descriptor, blob, { signal, index: known, tailBytes: TAIL_BYTES });
      assert.deepEqual(encodeTree(again.content.tree), encodeTree(first.content.tree));
      assert.equal(again.content.chunks.count, first.content.chunks.count);
      assert.ok(
        blob.reads.every(({ offset }) => offset >= bytes.byteLength - TAIL_BYTES),
        'only the end was read',
      );

      // Bytes for another digest are nobody's index.
      const strange = { digest: sha256('other'), bytes: Buffer.from('{}'), keep: () => assert.fail('not asked for') };
      const own = await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal, index: strange });
      assert.deepEqual(encodeTree(own.content.tree), encodeTree(first.content.tree));
    }
  });
}

test('annotations that name no digest pin nothing', async () => {
  const [layer] = await fixtureLayers('small/oci-estargz');
  assert.ok(layer !== undefined);
  const annotations = { 'containerd.io/snapshot/stargz/toc.digest': 'sha256:../../etc' };
  assert.equal(indexDigestOf({ ...layer.descriptor, annotations }), undefined);
  assert.equal(indexDigestOf({ ...layer.descriptor, annotations: {} }), undefined);
  await assert.rejects(
    readLayer({ ...layer.descriptor, annotations }, new MemoryBlob(layer.bytes, layer.descriptor.digest), { signal }),
    (error) => hasCode(error, 'INVALID_DIGEST') || hasCode(error, 'INVALID_LAYER'),
  );
});
