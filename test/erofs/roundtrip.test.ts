import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { readErofs } from '../../src/erofs/reader.ts';
import { crc32c } from '../../src/erofs/superblock.ts';
import { writeErofs, writeErofsFile } from '../../src/erofs/writer.ts';
import { hasCode } from '../../src/errors.ts';
import {
  type ByteString,
  byteString,
  byteStringOf,
  type DirNode,
  emptyDir,
  type FileNode,
  type LayerTree,
  type TreeNode,
} from '../../src/image/layer-tree.ts';
import { arbitraryTree, RANDOM_DEVICES } from './arbitrary-tree.ts';
import { describeTree } from './describe-tree.ts';

const META = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

function treeOf(children: Record<string, TreeNode>): LayerTree {
  const root = emptyDir();
  for (const [name, node] of Object.entries(children)) root.children.set(byteString(name), node);
  return { root };
}

function plainFile(change: Partial<FileNode> = {}): FileNode {
  return { kind: 'file', ...META, size: 0, extents: [], ...change };
}

function roundTrip(tree: LayerTree, devices = RANDOM_DEVICES): LayerTree {
  return readErofs(writeErofs(tree, { devices })).tree;
}

test('crc32c is the one of the iSCSI vectors, without the final inversion', () => {
  assert.equal(~crc32c(Buffer.from('123456789')) >>> 0, 0xe3069283);
  assert.equal(~crc32c(new Uint8Array(32)) >>> 0, 0x8a9136aa);
});

test('any tree reads back as it was written', () => {
  fc.assert(
    fc.property(arbitraryTree({ whiteouts: true }), (tree) => {
      assert.deepEqual(describeTree(roundTrip(tree)), describeTree(tree));
    }),
    { numRuns: 300 },
  );
});

test('the same tree gives the same bytes, another tree another uuid', () => {
  const one = writeErofs(treeOf({ a: plainFile() }), { devices: [] });
  assert.deepEqual(writeErofs(treeOf({ a: plainFile() }), { devices: [] }), one);
  const other = writeErofs(treeOf({ b: plainFile() }), { devices: [] });
  assert.notDeepEqual(readErofs(one).superblock.uuid, readErofs(other).superblock.uuid);
  const uuid = Uint8Array.from({ length: 16 }, (_, index) => index);
  assert.deepEqual(readErofs(writeErofs(treeOf({}), { devices: [], uuid })).superblock.uuid, uuid);
});

test('directories of every size around the block boundaries read back', () => {
  for (let names = 0; names < 420; names += 1) {
    const dir = emptyDir();
    for (let index = 0; index < names; index += 1) dir.children.set(`entry-${index}` as ByteString, plainFile());
    const tree = treeOf({ dir, link: { kind: 'symlink', ...META, target: 'x'.repeat(1 + names * 9) as ByteString } });
    assert.deepEqual(describeTree(roundTrip(tree)), describeTree(tree), `${names} names`);
  }
});

test('a tree 5000 directories deep is written and read without recursion', () => {
  const root = emptyDir();
  let dir: DirNode = root;
  for (let depth = 0; depth < 5000; depth += 1) {
    const next = emptyDir();
    dir.children.set('d' as ByteString, next);
    dir = next;
  }
  dir.children.set('end' as ByteString, plainFile());
  let found: TreeNode | undefined = roundTrip({ root }).root;
  for (let depth = 0; depth < 5000; depth += 1)
    found = found?.kind === 'dir' ? found.children.get('d' as ByteString) : undefined;
  assert.ok(found?.kind === 'dir' && found.children.has('end' as ByteString));
});

test('a contiguous file has one chunk, whatever its size', () => {
  const size = 3 * 2 ** 40 + 17;
  const devices = [{ tag: '', blocks: 2 ** 32 - 1 }];
  const file = plainFile({ size, extents: [{ fileOffset: 0, length: size, device: 0, deviceOffset: 8192 }] });
  const image = writeErofs(treeOf({ big: file }), { devices });
  assert.ok(image.byteLength <= 8192);
  assert.deepEqual(describeTree(readErofs(image).tree), describeTree(treeOf({ big: file })));
});

test('values used twice and long values are stored once', () => {
  const value = Buffer.alloc(3000, 'v');
  const children: Record<string, TreeNode> = {};
  for (let index = 0; index < 100; index += 1) {
    children[`f${index}`] = plainFile({ xattrs: new Map([[byteString('user.big'), Buffer.from(value)]]) });
  }
  const tree = treeOf(children);
  const image = writeErofs(tree, { devices: [] });
  assert.ok(image.byteLength < 32 * 1024, `${image.byteLength} bytes`);
  assert.deepEqual(describeTree(readErofs(image).tree), describeTree(tree));
});

test('more than 255 shared xattrs on one inode spill into the inode', () => {
  const xattrs = new Map<ByteString, Uint8Array>();
  for (let index = 0; index < 400; index += 1) xattrs.set(byteString(`user.n${index}`), Buffer.from(`v${index}`));
  const tree = treeOf({ a: plainFile({ xattrs }), b: plainFile({ xattrs: new Map(xattrs) }) });
  assert.deepEqual(describeTree(roundTrip(tree)), describeTree(tree));
});

test('what overlayfs owns and namespaces no kernel knows are left out', () => {
  const xattrs = new Map(
    ['trusted.overlay.redirect', 'trusted.overlay.opaque', 'com.apple.quarantine', 'system.nfs4_acl', 'user.kept'].map(
      (name): [ByteString, Uint8Array] => [byteString(name), Uint8Array.of(121)],
    ),
  );
  const dir: DirNode = { ...emptyDir(), xattrs };
  const read = roundTrip(treeOf({ dir })).root.children.get(byteString('dir'));
  assert.ok(read?.kind === 'dir' && !read.opaque);
  assert.deepEqual([...(read.xattrs ?? new Map()).keys()], ['user.kept']);
});

test('what EROFS cannot hold is refused as INVALID_LAYER', () => {
  const extent = { fileOffset: 0, length: 4096, device: 0, deviceOffset: 0 };
  const bad: Record<string, LayerTree> = {
    'name of 256 bytes': treeOf({ ['n'.repeat(256)]: plainFile() }),
    'empty name': treeOf({ '': plainFile() }),
    'dot name': treeOf({ '..': plainFile() }),
    'slash in a name': treeOf({ 'a/b': plainFile() }),
    'NUL in a name': treeOf({ 'a\0': plainFile() }),
    'name that is no byte string': {
      root: { ...emptyDir(), children: new Map([['\u20ac' as ByteString, plainFile()]]) },
    },
    'target of 4096 bytes': treeOf({ l: { kind: 'symlink', ...META, target: 'x'.repeat(4096) as ByteString } }),
    'empty target': treeOf({ l: { kind: 'symlink', ...META, target: '' as ByteString } }),
    'mode beyond 7777': treeOf({ f: plainFile({ mode: 0o10000 }) }),
    'nanoseconds beyond a second': treeOf({ f: plainFile({ mtimeNsec: 1e9 }) }),
    'fractional mtime': treeOf({ f: plainFile({ mtimeSec: 0.5 }) }),
    'negative size': treeOf({ f: plainFile({ size: -1 }) }),
    'minor of 21 bits': treeOf({ c: { kind: 'char', ...META, major: 1, minor: 2 ** 20 } }),
    'xattr value of 64 KiB': treeOf({
      f: plainFile({ xattrs: new Map([[byteString('user.a'), new Uint8Array(65536)]]) }),
    }),
    'xattr name of 256 bytes': treeOf({
      f: plainFile({ xattrs: new Map([[byteString(`user.${'n'.repeat(251)}`), new Uint8Array(1)]]) }),
    }),
    'extent on no device': treeOf({ f: plainFile({ size: 4096, extents: [{ ...extent, device: 2 }] }) }),
    'extent beyond its device': treeOf({
      f: plainFile({ size: 4096, extents: [{ ...extent, deviceOffset: 2 ** 30 }] }),
    }),
    'extent off the grid': treeOf({ f: plainFile({ size: 4096, extents: [{ ...extent, deviceOffset: 512 }] }) }),
    'extent beyond the file': treeOf({ f: plainFile({ size: 4095, extents: [extent] }) }),
    'extents that overlap': treeOf({ f: plainFile({ size: 8192, extents: [extent, extent] }) }),
    'empty extent': treeOf({ f: plainFile({ size: 4096, extents: [{ ...extent, length: 0 }] }) }),
  };
  const shared = emptyDir();
  bad['directory with two names'] = treeOf({ a: shared, b: shared });
  const loop = emptyDir();
  loop.children.set(byteString('self'), loop);
  bad['directory inside itself'] = { root: loop };
  for (const [what, tree] of Object.entries(bad)) {
    assert.throws(
      () => writeErofs(tree, { devices: RANDOM_DEVICES }),
      (error) => hasCode(error, 'INVALID_LAYER'),
      what,
    );
  }
});

test('a sparse file of petabytes in small pieces is TOO_LARGE, not out of memory', () => {
  const tree = treeOf({
    f: plainFile({ size: 2 ** 50, extents: [{ fileOffset: 4096, length: 1, device: 0, deviceOffset: 0 }] }),
  });
  assert.throws(
    () => writeErofs(tree, { devices: RANDOM_DEVICES }),
    (error) => hasCode(error, 'TOO_LARGE'),
  );
});

test('names and targets of the longest length, and every byte value, survive', () => {
  const all = byteStringOf(
    Uint8Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => byte !== 0 && byte !== 47),
  );
  const tree = treeOf({});
  tree.root.children.set(all, { kind: 'symlink', ...META, target: (all + all).repeat(8).slice(0, 4095) as ByteString });
  tree.root.children.set('n'.repeat(255) as ByteString, plainFile());
  assert.deepEqual(describeTree(roundTrip(tree)), describeTree(tree));
});

test('damaged images are refused as INVALID_LAYER or read as some tree, never anything else', () => {
  fc.assert(
    fc.property(
      arbitraryTree({ whiteouts: true }),
      fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 20 }),
      (tree, damage) => {
        const image = writeErofs(tree, { devices: RANDOM_DEVICES });
        for (const [at, value] of damage) image[1152 + (at % (image.byteLength - 1152))] = value;
        new DataView(image.buffer).setUint32(1032, 2, true); // no checksum: get past the front door
        try {
          describeTree(readErofs(image).tree);
        } catch (error) {
          assert.ok(hasCode(error, 'INVALID_LAYER'), String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});

test('a wrong checksum and a cut image are refused', () => {
  const image = writeErofs(treeOf({ a: plainFile() }), { devices: [] });
  for (const length of [0, 1024, 4095]) {
    assert.throws(
      () => readErofs(image.subarray(0, length)),
      (error) => hasCode(error, 'INVALID_LAYER'),
    );
  }
  image[1300] = (image[1300] as number) ^ 1;
  assert.throws(
    () => readErofs(image),
    (error) => hasCode(error, 'INVALID_LAYER'),
  );
});

test('writing to a file gives the same bytes, and nothing when it is aborted', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-erofs-'));
  try {
    const tree = treeOf({ a: plainFile(), b: emptyDir() });
    const size = await writeErofsFile(tree, { devices: [] }, join(folder, '1.erofs'), {
      signal: AbortSignal.timeout(10_000),
    });
    const written = await readFile(join(folder, '1.erofs'));
    assert.equal(written.byteLength, size);
    assert.ok(written.equals(writeErofs(tree, { devices: [] })));
    const aborted = AbortSignal.abort();
    await assert.rejects(writeErofsFile(tree, { devices: [] }, join(folder, '2.erofs'), { signal: aborted }), {
      name: 'AbortError',
    });
    const missing = writeErofsFile(tree, { devices: [] }, join(folder, 'no', '3.erofs'), {
      signal: AbortSignal.timeout(10_000),
    });
    await assert.rejects(missing, (error) => hasCode(error, 'STORE_IO'));
    assert.deepEqual(await readdir(folder), ['1.erofs']);
  } finally {
    await rm(folder, { recursive: true });
  }
});
