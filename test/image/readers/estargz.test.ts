import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { decodeExtent } from '../../../src/image/codec.ts';
import type { LayerDescriptor } from '../../../src/image/layer-reader.ts';
import { byteString, type FileExtent, type TreeNode } from '../../../src/image/layer-tree.ts';
import { createEstargzReader, TOC_DIGEST_ANNOTATION } from '../../../src/image/readers/estargz.ts';
import { FOOTER_BYTES, parseEstargzFooter } from '../../../src/image/readers/estargz-footer.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { fixtureLayers } from '../../fakes/oci-layout.ts';
import { layerReaderSuite } from '../../suites/layer-reader-suite.ts';
import { expectedRows, type TreeRow } from '../../suites/tree-rows.ts';

layerReaderSuite('eStargz', {
  reader: createEstargzReader(),
  layers: () => fixtureLayers('small/oci-estargz'),
  expected: () => expectedRows('small/tree.jsonl'),
  normalise,
  pinAnnotation: TOC_DIGEST_ANNOTATION,
  indexRange({ bytes }) {
    const footer = parseEstargzFooter(bytes.subarray(-FOOTER_BYTES), bytes.byteLength);
    if (footer?.kind !== 'inline') throw new Error('no footer');
    return { start: footer.tocOffset, end: footer.tocEnd };
  },
  maxRequests: 1,
});

/** eStargz keeps seconds, rounded as Go's tar writer does, and its JSON no name that is not UTF-8. The mtime of / is that of the unpacking. */
function normalise(row: TreeRow): TreeRow {
  const mtimeNs = row.path === '/' ? '' : String((BigInt(row.mtimeNs) + 500_000_000n) / 1_000_000_000n);
  return { ...row, mtimeNs, path: row.path.replace('caf%E9-latin1', 'caf%EF%BF%BD-latin1') };
}

test('a real layer in chunks of 64 KiB gives its files whole', async () => {
  const base = new URL('../../fixtures/estargz-64k-chunks/', import.meta.url);
  const bytes = await readFile(new URL('layer.tar.gz', base));
  const descriptor = JSON.parse(await readFile(new URL('descriptor.json', base), 'utf8')) as LayerDescriptor;
  const signal = AbortSignal.timeout(30_000);
  const { content } = await readLayer(descriptor, new MemoryBlob(bytes), { signal });
  assert.equal(content.chunks.count, 25);
  const expected = await expectedRows('small/tree.jsonl');
  for (const path of ['usr/local/new', 'usr/share/same-as-layer1', 'data/replaced']) {
    const row = expected.find((each) => each.path === path) as TreeRow;
    let node: TreeNode | undefined = content.tree.root;
    for (const part of path.split('/')) node = node?.kind === 'dir' ? node.children.get(byteString(part)) : undefined;
    assert.ok(node?.kind === 'file' && node.extents.length === 1 && node.size === row.size, path);
    const { deviceOffset, length } = node.extents[0] as FileExtent;
    const { first, end } = content.chunks.covering(deviceOffset, length);
    assert.equal(end - first, Math.ceil(length / 65536));
    const hash = createHash('sha256');
    for (let index = first; index < end; index += 1) {
      const chunk = content.chunks.row(index);
      const extent = content.chunks.extent(chunk.extent);
      const coded = bytes.subarray(extent.offset, extent.offset + extent.length);
      const decoded = await decodeExtent(extent.codec, coded, extent.decodedLength, { signal });
      hash.update(decoded.subarray(chunk.innerOffset, chunk.innerOffset + chunk.length));
    }
    assert.equal(hash.digest('hex'), row.sha256, path);
  }
});
