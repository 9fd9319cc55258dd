import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { describe, test } from 'node:test';
import type { ChunkTable } from '../../src/core/chunk-table.ts';
import { mergeLayers } from '../../src/erofs/merge.ts';
import { ShoalError } from '../../src/errors.ts';
import { decodeExtent } from '../../src/image/codec.ts';
import type { LayerContent, LayerDescriptor, LayerReader } from '../../src/image/layer-reader.ts';
import type { FileNode, LayerTree, TreeNode } from '../../src/image/layer-tree.ts';
import { readLayer } from '../../src/image/readers/index.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';
import { MemoryBlob } from '../fakes/memory-blob.ts';
import type { FixtureLayer } from '../fakes/oci-layout.ts';
import { type TreeRow, treeRows } from './tree-rows.ts';

/** What a format brings to the suite. */
export interface LayerReaderFixture {
  readonly reader: LayerReader;
  /** The layers of one image, bottom first. */
  layers(): Promise<readonly FixtureLayer[]>;
  /** What the merged layers must be; `normalise` drops what the format cannot hold, on both sides. */
  expected(): Promise<readonly TreeRow[]>;
  normalise(row: TreeRow): TreeRow;
  /** Annotation whose digest pins the index. */
  readonly pinAnnotation: string;
  /** Range of the blob that holds the pinned index. */
  indexRange(layer: FixtureLayer): { start: number; end: number };
  /** Requests that reading a small layer may cost. */
  readonly maxRequests: number;
}

const signal = AbortSignal.timeout(120_000);

/** What every reader of a format owes its callers. */
export function layerReaderSuite(name: string, fixture: LayerReaderFixture): void {
  const readers = [fixture.reader];
  const read = async (layer: FixtureLayer, change: Partial<FixtureLayer> = {}): Promise<LayerContent> => {
    const { descriptor, bytes } = { ...layer, ...change };
    return (await readLayer(descriptor, new MemoryBlob(bytes, descriptor.digest), { signal, readers })).content;
  };

  describe(`${name} reader`, () => {
    test('gives the tree that containerd unpacks, every byte of it verified', async () => {
      const layers = await fixture.layers();
      const contents = await Promise.all(layers.map((layer) => read(layer)));
      const devices = await Promise.all(contents.map((content, at) => fillDevice(content, layers[at] as FixtureLayer)));
      const merged = mergeLayers(
        contents.map(({ tree }, at) => ({ tree, devices: [at] })),
        { bottom: true },
      );
      const rows = await treeRows(merged, async (file) => fileSha256(file, devices));
      const expected = (await fixture.expected()).map((row) => fixture.normalise(row));
      assert.deepEqual(rows.map((row) => fixture.normalise(row)).sort(byPath), expected.sort(byPath));
    });

    test('gives a chunk table that covers every file and nothing outside the blob', async () => {
      for (const layer of await fixture.layers()) checkTable(await read(layer), layer.bytes.byteLength);
    });

    test('costs few requests', async () => {
      for (const { descriptor, bytes } of await fixture.layers()) {
        const blob = new MemoryBlob(bytes, descriptor.digest);
        const { format } = await readLayer(descriptor, blob, { signal, readers });
        assert.equal(format, fixture.reader.format);
        assert.ok(blob.reads.length <= fixture.maxRequests, JSON.stringify(blob.reads));
      }
    });

    test('does not know a layer without its annotations', async () => {
      for (const { descriptor, bytes } of await fixture.layers()) {
        const bare: LayerDescriptor = { digest: descriptor.digest, annotations: {} };
        assert.equal(await fixture.reader.probe(bare, new MemoryBlob(bytes), { signal }), false);
        const reading = readLayer(bare, new MemoryBlob(bytes), { signal, readers });
        await assert.rejects(reading, { code: 'UNSUPPORTED_LAYER' });
      }
    });

    test('refuses a truncated blob, whatever the descriptor says about its size', async () => {
      for (const layer of await fixture.layers()) {
        const { size: _, ...descriptor } = layer.descriptor;
        const size = layer.bytes.byteLength;
        for (const length of [0, 1, 50, Math.floor(size / 2), size - 1000, size - 1]) {
          const bytes = layer.bytes.subarray(0, length);
          await refuses(read(layer, { bytes, descriptor }), /^(INVALID_LAYER|UNSUPPORTED_LAYER)$/);
          await refuses(read(layer, { bytes }), /^INVALID_LAYER$/);
        }
      }
    });

    test('refuses an index that is not the annotated one', async () => {
      for (const layer of await fixture.layers()) {
        const pin = layer.descriptor.annotations[fixture.pinAnnotation] as string;
        const flipped = `${pin.slice(0, -1)}${pin.endsWith('0') ? '1' : '0'}`;
        const annotations = { ...layer.descriptor.annotations, [fixture.pinAnnotation]: flipped };
        await refuses(read(layer, { descriptor: { ...layer.descriptor, annotations } }), /^INVALID_LAYER$/);
      }
    });

    test('never gives another tree when a bit of the index is flipped', async () => {
      for (const layer of await fixture.layers()) {
        const { start, end } = fixture.indexRange(layer);
        const before = JSON.stringify(shapeOf((await read(layer)).tree));
        const step = Math.max(1, Math.floor((end - start) / 200));
        for (let at = start; at < end; at += step) {
          const bytes = Uint8Array.from(layer.bytes);
          bytes[at] = (bytes[at] as number) ^ 0x10;
          // Some bits mean nothing (a gzip header's time stamp): the tree must be right or refused.
          const outcome = await read(layer, { bytes }).catch((error: unknown) => error);
          if (outcome instanceof Error) assert.ok(outcome instanceof ShoalError, String(outcome));
          else assert.equal(JSON.stringify(shapeOf((outcome as LayerContent).tree)), before, `byte ${at}`);
        }
      }
    });

    test('names the layer in its errors and passes on failures of the source', async () => {
      const [layer] = await fixture.layers();
      const { descriptor, bytes } = layer as FixtureLayer;
      const blob = new MemoryBlob(bytes, descriptor.digest);
      blob.onRead = () => {
        throw new ShoalError('SOURCE_FAILED', 'the registry is gone');
      };
      await assert.rejects(readLayer(descriptor, blob, { signal, readers }), (error: unknown) => {
        return (
          error instanceof ShoalError && error.code === 'SOURCE_FAILED' && error.context.layer === descriptor.digest
        );
      });
    });

    test('ends with the reason of an aborted signal', async () => {
      const [layer] = await fixture.layers();
      const { descriptor, bytes } = layer as FixtureLayer;
      const reason = new Error('enough');
      const aborted = AbortSignal.abort(reason);
      await assert.rejects(readLayer(descriptor, new MemoryBlob(bytes), { signal: aborted, readers }), reason);
      const late = new AbortController();
      const blob = new MemoryBlob(bytes, descriptor.digest);
      blob.onRead = () => late.abort(reason);
      await assert.rejects(readLayer(descriptor, blob, { signal: late.signal, readers }), reason);
    });
  });
}

/** The device as it is when all chunks have arrived: each decoded from its extent and verified. */
async function fillDevice(content: LayerContent, layer: FixtureLayer): Promise<Uint8Array> {
  const { chunks } = content;
  const device = new Uint8Array(chunks.deviceSize);
  for (let index = 0; index < chunks.count; index += 1) {
    const row = chunks.row(index);
    const extent = chunks.extent(row.extent);
    const coded = layer.bytes.subarray(extent.offset, extent.offset + extent.length);
    const decoded = await decodeExtent(extent.codec, coded, extent.decodedLength, { signal });
    assert.ok(decoded.byteLength >= extent.decodedLength);
    const chunk = await verifyChunk(row, decoded.subarray(row.innerOffset, row.innerOffset + row.length));
    device.set(chunk.bytes, row.deviceOffset);
  }
  return device;
}

function fileSha256(file: FileNode, devices: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  let at = 0;
  const zeros = (upTo: number): void => {
    if (upTo > at) hash.update(new Uint8Array(upTo - at));
  };
  for (const extent of file.extents) {
    assert.ok(extent.fileOffset >= at && extent.fileOffset % 4096 === 0 && extent.deviceOffset % 4096 === 0);
    zeros(extent.fileOffset);
    const device = devices[extent.device] as Uint8Array;
    hash.update(device.subarray(extent.deviceOffset, extent.deviceOffset + extent.length));
    at = extent.fileOffset + extent.length;
  }
  assert.ok(at <= file.size);
  zeros(file.size);
  return hash.digest('hex');
}

function checkTable({ tree, chunks, prefetchBytes }: LayerContent, blobSize: number): void {
  assert.equal(chunks.compressedSize, blobSize);
  assert.ok((prefetchBytes ?? 0) <= chunks.deviceSize);
  let end = 0;
  for (let index = 0; index < chunks.count; index += 1) {
    const row = chunks.row(index);
    const extent = chunks.extent(row.extent);
    assert.ok(row.deviceOffset >= end);
    end = row.deviceOffset + row.length;
    assert.ok(extent.offset + extent.length <= blobSize);
    assert.ok(row.innerOffset + row.length <= extent.decodedLength);
  }
  assert.ok(end <= chunks.deviceSize);
  for (const node of nodesOf(tree.root)) if (node.kind === 'file') checkCovered(node, chunks);
}

/** Every block of a file's extents holds some chunk. */
function checkCovered(file: FileNode, chunks: ChunkTable): void {
  for (const extent of file.extents) {
    const { first, end } = chunks.covering(extent.deviceOffset, extent.length);
    let at = extent.deviceOffset;
    for (let index = first; index < end; index += 1) {
      const blocks = chunks.blocksOf(index);
      assert.ok(blocks.first * 4096 <= at);
      at = blocks.end * 4096;
    }
    assert.ok(at >= extent.deviceOffset + extent.length);
  }
}

function* nodesOf(node: TreeNode): Generator<TreeNode> {
  yield node;
  if (node.kind === 'dir') for (const child of node.children.values()) yield* nodesOf(child);
}

/** A tree as plain JSON. */
function shapeOf(tree: LayerTree): unknown {
  const plain = (node: TreeNode): unknown => {
    if (node.kind === 'whiteout') return node.kind;
    const xattrs = node.xattrs === undefined ? [] : [...node.xattrs];
    if (node.kind !== 'dir') return { ...node, xattrs };
    return { ...node, xattrs, children: [...node.children].map(([name, child]) => [name, plain(child)]) };
  };
  return plain(tree.root);
}

async function refuses(reading: Promise<unknown>, code: RegExp): Promise<void> {
  await assert.rejects(reading, (error: unknown) => error instanceof ShoalError && code.test(error.code));
}

function byPath(a: TreeRow, b: TreeRow): number {
  return a.path < b.path ? -1 : 1;
}
