import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LARGE_FILE_BYTES } from '../../src/core/policy/file-edges.ts';
import { edgesByDevice } from '../../src/image/file-edges.ts';
import { byteString, type DirNode, emptyDir, type FileExtent, type FileNode } from '../../src/image/layer-tree.ts';

const BLOCK = 4096;
/** Blocks of the smallest large file. */
const LARGE = LARGE_FILE_BYTES / BLOCK;

function fileOf(...extents: FileExtent[]): FileNode {
  const last = extents.at(-1);
  return { ...emptyDir(), kind: 'file', size: last === undefined ? 0 : last.fileOffset + last.length, extents };
}

function extent(fileBlock: number, blocks: number, deviceBlock: number, device = 0): FileExtent {
  return { fileOffset: fileBlock * BLOCK, length: blocks * BLOCK, device, deviceOffset: deviceBlock * BLOCK };
}

function dirOf(files: Record<string, FileNode | DirNode>): DirNode {
  const dir = emptyDir();
  for (const [name, node] of Object.entries(files)) dir.children.set(byteString(name), node);
  return dir;
}

test('large files have edges wherever they are in the tree, small and empty ones have none', () => {
  const ragged = { ...extent(0, LARGE, 100 + LARGE), length: LARGE * BLOCK + 1 };
  const root = dirOf({
    empty: fileOf(),
    small: fileOf(extent(0, LARGE - 1, 0)),
    sub: dirOf({ deep: dirOf({ one: fileOf(extent(0, LARGE, 100)) }) }),
    two: fileOf(ragged),
  });
  const [edges] = edgesByDevice({ root });
  assert.deepEqual([...(edges ?? [])], [100, 100 + LARGE, 101 + 2 * LARGE], 'the end of a file is that of its block');
});

test('a file with holes is one run where its data lies side by side, and several where it does not', () => {
  const half = LARGE / 2;
  const side = fileOf(extent(0, half, 0), extent(1000, half, half));
  const apart = fileOf(extent(0, half, 5000), extent(half, half, 6000), extent(LARGE, LARGE, 7000));
  const [edges] = edgesByDevice({ root: dirOf({ side, apart, link: side }) });
  assert.deepEqual([...(edges ?? [])], [0, LARGE, 7000, 7000 + LARGE]);
});

test('each device of a tree has its own edges', () => {
  const both = fileOf(extent(0, LARGE, 10, 2), extent(LARGE, 2 * LARGE, 10 + LARGE, 0));
  const edges = edgesByDevice({ root: dirOf({ both }) });
  assert.deepEqual(
    edges.map((each) => [...each]),
    [[10 + LARGE, 10 + 3 * LARGE], [], [10, 10 + LARGE]],
  );
  assert.deepEqual(edgesByDevice({ root: emptyDir() }), []);
});
