import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { decodeChunkTable, encodeChunkTable } from '../../../src/core/chunk-table-codec.ts';
import type { LayerContent, LayerDescriptor } from '../../../src/image/layer-reader.ts';
import { byteString, type FileNode, type TreeNode } from '../../../src/image/layer-tree.ts';
import { TOC_DIGEST_ANNOTATION } from '../../../src/image/readers/estargz.ts';
import { readLayer } from '../../../src/image/readers/index.ts';
import { createZstdchunkedReader } from '../../../src/image/readers/zstdchunked.ts';
import { parseManifestPosition } from '../../../src/image/readers/zstdchunked-footer.ts';
import { MemoryBlob } from '../../fakes/memory-blob.ts';
import { type FixtureLayer, fixtureLayers } from '../../fakes/oci-layout.ts';
import { stargzStyleLayer, zeros } from '../../fakes/zstdchunked-image.ts';
import { layerReaderSuite } from '../../suites/layer-reader-suite.ts';
import { expectedRows, type TreeRow } from '../../suites/tree-rows.ts';

const signal = AbortSignal.timeout(60_000);
const PREFIX = 'io.github.containers.zstd-chunked.';

layerReaderSuite('zstd:chunked', {
  reader: createZstdchunkedReader(),
  layers: () => fixtureLayers('small/oci-zstdchunked'),
  expected: () => expectedRows('small/tree.jsonl'),
  normalise,
  pinAnnotation: `${PREFIX}manifest-checksum`,
  indexRange({ descriptor }) {
    const position = parseManifestPosition(descriptor.annotations[`${PREFIX}manifest-position`] as string);
    if (position === undefined) throw new Error('no position');
    return { start: position.offset, end: position.offset + position.length };
  },
  maxRequests: 1,
});

/** Its JSON holds no name that is not UTF-8; the mtime of / is that of the unpacking. */
function normalise(row: TreeRow): TreeRow {
  const mtimeNs = row.path === '/' ? '' : row.mtimeNs;
  return { ...row, mtimeNs, path: row.path.replace('caf%E9-latin1', 'caf%EF%BF%BD-latin1') };
}

async function read({ descriptor, bytes }: FixtureLayer): Promise<LayerContent> {
  const { format, content } = await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal });
  assert.equal(format, 'zstd:chunked');
  return content;
}

function fileAt(content: LayerContent, path: string): FileNode {
  let node: TreeNode | undefined = content.tree.root;
  for (const part of path.split('/')) node = node?.kind === 'dir' ? node.children.get(byteString(part)) : undefined;
  assert.equal(node?.kind, 'file', path);
  return node as FileNode;
}

function digestsOf({ chunks }: LayerContent): string[] {
  return Array.from({ length: chunks.count }, (_, row) => chunks.row(row).digest);
}

test('the generation of 2022 gives the same files and chunks as the one of today', async () => {
  const base = new URL('../../fixtures/zstdchunked-2022/', import.meta.url);
  const descriptor = JSON.parse(await readFile(new URL('descriptor.json', base), 'utf8')) as LayerDescriptor;
  const before = await read({ descriptor, bytes: await readFile(new URL('layer.tar.zst', base)) });
  const [, layer] = await fixtureLayers('small/oci-zstdchunked');
  const today = await read(layer as FixtureLayer);
  assert.ok(today.chunks.count > 40);
  assert.deepEqual(digestsOf(before), digestsOf(today));
  const { extents, size, mtimeNsec } = fileAt(today, 'data/replaced');
  const same = fileAt(before, 'data/replaced');
  assert.deepEqual([same.extents, same.size, same.mtimeNsec], [extents, size, mtimeNsec]);
});

test('chunks that start anywhere lie side by side, and survive being stored', async () => {
  const [layer] = await fixtureLayers('small/oci-zstdchunked');
  const { chunks } = await read(layer as FixtureLayer);
  assert.ok(chunks.packed);
  const bytes = encodeChunkTable(chunks);
  const again = decodeChunkTable(bytes);
  assert.deepEqual(encodeChunkTable(again), bytes);
  for (let row = 0; row < chunks.count; row += 1) {
    assert.deepEqual(again.row(row), chunks.row(row));
    assert.deepEqual(again.spanOf(row), chunks.spanOf(row));
  }
});

test('a chunk of zeros is a hole that takes no place on the device', async () => {
  const [layer] = await fixtureLayers('small/oci-zstdchunked');
  const content = await read(layer as FixtureLayer);
  const sparse = fileAt(content, 'data/sparse');
  const covered = sparse.extents.reduce((sum, { length }) => sum + length, 0);
  assert.ok(sparse.size > 3 * 1024 * 1024 && covered < 64 * 1024, `${covered} of ${sparse.size}`);
});

test('layers of stargz tools, which pin the JSON and name no ends, are read by their footer', async () => {
  const layer = stargzStyleLayer({ file: Buffer.concat([zeros(8192), Buffer.from('end')]), chunkBytes: 4096 });
  const content = await read(layer);
  assert.deepEqual(Object.keys(layer.descriptor.annotations), [TOC_DIGEST_ANNOTATION]);
  assert.equal(content.chunks.count, 3);
  assert.equal(fileAt(content, 'dir/file').size, 8195);
  assert.equal(content.tree.root.children.has(byteString('.no.prefetch.landmark')), false);
});
