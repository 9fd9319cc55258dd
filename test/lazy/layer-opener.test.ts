import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../src/core/digest.ts';
import { hasCode } from '../../src/errors.ts';
import type { LayerDescriptor } from '../../src/image/layer-reader.ts';
import { createLayerReaders } from '../../src/image/readers/index.ts';
import { parseReference } from '../../src/image/reference.ts';
import { type BlobOpener, createLayerOpener } from '../../src/lazy/layer-opener.ts';
import { silentLogger } from '../../src/log.ts';
import type { BlobStore, NewBlob } from '../../src/store/blob-store.ts';
import { estargzImage, MemberWriter } from '../fakes/estargz-image.ts';

const { signal } = new AbortController();

/** A real eStargz layer, and openers of it as it is and with a byte of its index changed. */
function layer(content: Buffer = Buffer.from('hello')): {
  descriptor: LayerDescriptor;
  good: BlobOpener;
  bad: BlobOpener;
} {
  const members = new MemberWriter();
  const { bytes, descriptor, tocOffset } = estargzImage([members.file('hello', content)], members);
  const changed = Uint8Array.from(bytes);
  changed[tocOffset + 40] = (changed[tocOffset + 40] as number) ^ 1;
  const opener = (content: Uint8Array): BlobOpener => ({
    openBlob: async (_reference, { digest }) => ({
      digest,
      size: content.byteLength,
      read: async (offset, length) => Uint8Array.prototype.slice.call(content, offset, offset + length),
    }),
  });
  return { descriptor: { ...descriptor, digest: sha256(bytes) }, good: opener(bytes), bad: opener(changed) };
}

function openerOf(registry: BlobOpener, direct: BlobOpener | undefined) {
  let made = 0;
  let edges: Uint32Array | undefined;
  const blobs = {
    open: async () => undefined,
    async create(_digest: unknown, { info, chunks, edges: known }: NewBlob) {
      made += 1;
      edges = known;
      return { info, table: chunks };
    },
  } as unknown as BlobStore;
  const readers = createLayerReaders();
  const opener = createLayerOpener({ registry, direct: async () => direct, blobs, readers, log: silentLogger });
  return { opener, made: () => made, edges: () => edges && [...edges] };
}

test('where large files of a layer begin and end is kept with it', async () => {
  const { descriptor, good } = layer(Buffer.alloc(1024 * 1024, 'large'));
  const { opener, edges } = openerOf(good, undefined);
  await opener.open(parseReference('app'), descriptor, { signal });
  assert.deepEqual(edges(), [0, 256]);
});

test('an index that a mirror damaged is read again past the mirrors', async () => {
  const { descriptor, good, bad } = layer();
  const { opener, made } = openerOf(bad, good);
  await opener.open(parseReference('app'), descriptor, { signal });
  assert.equal(made(), 1);
});

test('a layer that is damaged in the registry as well, or has no mirror, is refused', async () => {
  const { descriptor, bad } = layer();
  for (const direct of [bad, undefined]) {
    const { opener, made } = openerOf(bad, direct);
    await assert.rejects(
      opener.open(parseReference('app'), descriptor, { signal }),
      (error) => hasCode(error, 'INVALID_LAYER') || hasCode(error, 'CHUNK_CORRUPT'),
    );
    assert.equal(made(), 0);
  }
});
