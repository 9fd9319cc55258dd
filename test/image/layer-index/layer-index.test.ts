import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import { constants, gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { encodeChunkTable } from '../../../src/core/chunk-table-codec.ts';
import { sha256 } from '../../../src/core/digest.ts';
import { ShoalError } from '../../../src/errors.ts';
import { edgesByDevice } from '../../../src/image/file-edges.ts';
import { decodeLayerIndex, encodeLayerIndex, type LayerIndex } from '../../../src/image/layer-index/layer-index.ts';
import {
  byteString,
  type DirNode,
  emptyDir,
  type FileNode,
  type LayerTree,
  type TreeNode,
} from '../../../src/image/layer-tree.ts';
import { encodeWindows, readWindow, unpackWindow } from '../../../src/image/pass/windows.ts';
import { decodeTree, encodeTree } from '../../../src/image/tree-codec.ts';
import { fixtureLayers } from '../../fakes/oci-layout.ts';
import { passOver } from '../pass/pass-lab.ts';
import { tarOf } from '../tar/tar-lab.ts';

function indexOf(blob: Uint8Array): LayerIndex {
  const passed = passOver(blob);
  return {
    ...passed,
    layer: sha256(blob),
    tree: encodeTree(passed.tree),
    windows: passed.windows.length === 0 ? undefined : encodeWindows(passed.windows),
  };
}

/** Text of three MiB, so that there are windows. */
const text = Buffer.from(Array.from({ length: 300_000 }, (_, at) => `${at * at} shoal`).join('\n'));
const large = indexOf(
  gzipSync(
    tarOf([
      { path: 'dir/text', data: text },
      { path: 'noise', data: randomBytes(5000) },
    ]),
  ),
);

describe('a layer index', () => {
  test('reads back as it was', async () => {
    const layers = await fixtureLayers('small/oci-targz');
    for (const index of [large, ...layers.map(({ bytes }) => indexOf(bytes))]) {
      const back = decodeLayerIndex(encodeLayerIndex(index));
      assert.deepEqual(Buffer.from(back.tree), Buffer.from(index.tree));
      assert.deepEqual(encodeChunkTable(back.chunks), encodeChunkTable(index.chunks));
      assert.deepEqual(back.windows && Buffer.from(back.windows), index.windows && Buffer.from(index.windows));
      assert.deepEqual(back.edges, edgesByDevice(decodeTree(index.tree))[0] ?? new Uint32Array(0));
      assert.deepEqual([back.layer, back.diffId, back.packing], [index.layer, index.diffId, index.packing]);
    }
  });

  test('gives its windows one by one', async () => {
    const { windows } = large;
    assert.ok(windows !== undefined);
    const read = async (offset: number, length: number) => windows.subarray(offset, offset + length);
    const count = Buffer.from(windows).readUInt32LE(0);
    assert.ok(count > 1);
    for (let row = 0; row < count; row += 1) assert.equal((await readWindow(row, read)).byteLength, 32 * 1024);
  });

  test('that is cut short or not one is refused', () => {
    const bytes = encodeLayerIndex(large);
    for (const bad of [bytes.subarray(0, 0), bytes.subarray(0, 20), bytes.subarray(0, -1), Buffer.alloc(1000)]) {
      assert.throws(() => decodeLayerIndex(bad), { code: 'INVALID_LAYER' });
    }
  });

  test('that lacks windows its table names is refused', () => {
    assert.throws(() => decodeLayerIndex(encodeLayerIndex({ ...large, windows: undefined })), {
      code: 'INVALID_LAYER',
    });
    const fewer = encodeWindows([zstdCompressSync(Buffer.alloc(32 * 1024))]);
    assert.throws(() => decodeLayerIndex(encodeLayerIndex({ ...large, windows: fewer })), { code: 'INVALID_LAYER' });
  });

  test('with a bit flipped is the same, refused, or well-formed, never anything else', () => {
    const bytes = encodeLayerIndex(large);
    fc.assert(
      fc.property(fc.nat(bytes.byteLength - 1), fc.integer({ min: 0, max: 7 }), (at, bit) => {
        const changed = Uint8Array.from(bytes);
        changed[at] = (changed[at] as number) ^ (1 << bit);
        try {
          decodeLayerIndex(changed);
        } catch (error) {
          assert.ok(error instanceof ShoalError && error.code === 'INVALID_LAYER', String(error));
        }
      }),
      { numRuns: 300 },
    );
  });

  test('that unpacks to gigabytes is refused soon', () => {
    const bomb = zstdCompressSync(Buffer.alloc(300 * 1024 * 1024), {
      params: { [constants.ZSTD_c_compressionLevel]: 1 },
    });
    const bytes = Buffer.from(encodeLayerIndex(large));
    const names = bytes.readUInt32LE(8);
    const tree = bytes.readUInt32LE(12);
    bytes.writeUInt32LE(bomb.byteLength, 12);
    const hostile = Buffer.concat([bytes.subarray(0, 24 + names), bomb, bytes.subarray(24 + names + tree)]);
    assert.throws(() => decodeLayerIndex(hostile), { code: 'INVALID_LAYER' });
  });

  const node = (change: Partial<FileNode>): FileNode => ({
    kind: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    size: 5000,
    extents: [],
    ...change,
  });
  const at = (deviceOffset: number, length: number, fileOffset = 0, device = 0) => ({
    fileOffset,
    length,
    device,
    deviceOffset,
  });
  const hostile: Record<string, () => LayerTree> = {
    'a name with a slash': () => rootWith('a/b', node({})),
    'a name ..': () => rootWith('..', node({})),
    'a name .': () => rootWith('.', node({})),
    'an empty name': () => rootWith('', node({})),
    'a name with NUL': () => rootWith('a\0b', node({})),
    'a name of 256 bytes': () => rootWith('a'.repeat(256), node({})),
    'a mode that is none': () => rootWith('a', node({ mode: 0o100644 })),
    'data beyond the device': () => rootWith('a', node({ extents: [at(1 << 30, 5000)] })),
    'data of another device': () => rootWith('a', node({ extents: [at(0, 5000, 0, 1)] })),
    'data beyond the end of the file': () => rootWith('a', node({ extents: [at(0, 6000)] })),
    'data that overlaps': () => rootWith('a', node({ size: 20_000, extents: [at(0, 5000), at(0, 5000, 4096)] })),
    'an xattr that no layer may have': () =>
      rootWith('a', node({ xattrs: new Map([[byteString('trusted.overlay.opaque'), Buffer.from('y')]]) })),
  };
  for (const [name, make] of Object.entries(hostile)) {
    test(`with ${name} is refused`, () => {
      const bytes = encodeLayerIndex({ ...large, tree: encodeTree(make()) });
      assert.throws(() => decodeLayerIndex(bytes), { code: 'INVALID_LAYER' });
    });
  }

  test('of a window that is none is refused when it is read', () => {
    assert.throws(() => unpackWindow(Buffer.from('no window')), { code: 'STATE_CORRUPT' });
    assert.throws(() => unpackWindow(zstdCompressSync(Buffer.alloc(1 << 20))), { code: 'STATE_CORRUPT' });
  });
});

function rootWith(name: string, child: TreeNode): LayerTree {
  const root: DirNode = emptyDir();
  root.children.set(byteString(name), child);
  return { root };
}
