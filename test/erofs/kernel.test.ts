import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, lstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { mergeLayers } from '../../src/erofs/merge.ts';
import { writeErofs } from '../../src/erofs/writer.ts';
import {
  type ByteString,
  byteString,
  type DirNode,
  emptyDir,
  type FileExtent,
  type FileNode,
  type LayerTree,
  type TreeNode,
} from '../../src/image/layer-tree.ts';
import { arbitraryTree, RANDOM_DEVICES } from './arbitrary-tree.ts';
import { describeTree } from './describe-tree.ts';
import { cannotMount, cannotRun, contentOf, describeMount, MountBench, mountTree } from './mount-for-test.ts';

const META = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };
const skip = cannotMount();
/** Mounting is slow: no shrinking, the seed in the failure message finds the case again. */
const BRIEF = { numRuns: 40, endOnFailure: true };

/** Bytes that differ from block to block and from device to device. */
function deviceBytes(device: number, blocks: number): Buffer {
  const bytes = Buffer.alloc(blocks * 4096, 65 + device);
  for (let block = 0; block < blocks; block += 1) bytes.writeUInt32LE(block, block * 4096);
  return bytes;
}

const DEVICES = RANDOM_DEVICES.map(({ blocks }, index) => deviceBytes(index, blocks));

/** What the mounted tree must look like. */
function describeForMount(tree: LayerTree): ReturnType<typeof describeTree> {
  return describeTree(tree, (file) => contentOf(file, DEVICES));
}

test('the kernel shows any tree as it was written', { skip }, () => {
  fc.assert(
    fc.property(arbitraryTree({ whiteouts: true }), (tree) => {
      using bench = new MountBench();
      assert.deepEqual(describeMount(mountTree(bench, 'tree', tree, DEVICES)), describeForMount(tree));
    }),
    BRIEF,
  );
});

test('capabilities, ACLs, long xattrs and many shared ones reach the kernel unchanged', { skip }, () => {
  const acl = Buffer.from(
    '0200000001000600ffffffff02000700e803000004000400ffffffff10000700ffffffff20000400ffffffff',
    'hex',
  );
  const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
  const shared = new Map<ByteString, Uint8Array>();
  for (let index = 0; index < 300; index += 1)
    shared.set(byteString(`user.shared${index}`), Buffer.from(`value ${index}`));
  const root = emptyDir();
  const add = (name: string, xattrs: Map<ByteString, Uint8Array>): void => {
    root.children.set(byteString(name), { kind: 'file', ...META, size: 0, extents: [], xattrs });
  };
  add('ping', new Map([[byteString('security.capability'), capability]]));
  add('with-acl', new Map([[byteString('system.posix_acl_access'), acl]]));
  add(
    'long',
    new Map([
      [byteString('user.long'), Buffer.alloc(65535, 'l')],
      [byteString(`user.${'n'.repeat(250)}`), Buffer.from('n')],
    ]),
  );
  add('many', shared);
  add('many-again', new Map(shared));
  root.children.set(byteString('dir'), {
    ...emptyDir(),
    xattrs: new Map([[byteString('system.posix_acl_default'), acl]]),
  });
  using bench = new MountBench();
  assert.deepEqual(describeMount(mountTree(bench, 'xattrs', { root }, DEVICES)), describeForMount({ root }));
});

test('one directory of 100000 names lists and finds every one of them', { skip }, () => {
  const root = emptyDir();
  const wide = emptyDir();
  root.children.set(byteString('wide'), wide);
  for (let index = 0; index < 100_000; index += 1) {
    const extents = [{ fileOffset: 0, length: 1, device: 0, deviceOffset: (index % 512) * 4096 }];
    wide.children.set(byteString(`module-${(index * 7919) % 100_000}.js`), {
      kind: 'file',
      ...META,
      size: 1 + (index % 3000),
      extents,
    });
  }
  using bench = new MountBench();
  const folder = join(mountTree(bench, 'wide', { root }, DEVICES), 'wide');
  assert.deepEqual(readdirSync(folder).sort(), ([...wide.children.keys()] as string[]).sort());
  const found = execFileSync('find', [folder, '-type', 'f', '-printf', '%f %s\n'], { maxBuffer: 2 ** 26 }).toString();
  const expected = [...wide.children].map(([name, node]) => `${name} ${(node as FileNode).size}`);
  assert.deepEqual(found.trimEnd().split('\n').sort(), expected.sort());
  for (const absent of ['module-100000.js', 'a', 'zzz', 'module-', 'module-1.j']) {
    assert.equal(lstatSync(join(folder, absent), { throwIfNoEntry: false }), undefined, absent);
  }
});

test('files with holes, an odd end and terabytes of nothing read right at their far ends', { skip }, () => {
  const [first, second] = DEVICES as [Buffer, Buffer];
  const file = (size: number, extents: FileExtent[]): FileNode => ({ kind: 'file', ...META, size, extents });
  const holeBytes = 2 ** 26;
  const oddBytes = 2 ** 21 - 5;
  const emptyBytes = 5 * 2 ** 40 + 1;
  const root = emptyDir();
  const tail = { fileOffset: holeBytes - 8192, length: 8192, device: 1, deviceOffset: 28672 };
  root.children.set(byteString('sparse'), file(holeBytes, [tail]));
  root.children.set(
    byteString('odd'),
    file(oddBytes, [{ fileOffset: 0, length: oddBytes, device: 0, deviceOffset: 0 }]),
  );
  root.children.set(byteString('nothing'), file(emptyBytes, []));
  using bench = new MountBench();
  const folder = mountTree(bench, 'sparse', { root }, DEVICES);
  assert.equal(lstatSync(join(folder, 'nothing')).size, emptyBytes);
  const read = (name: string, at: number): Buffer => {
    const fd = openSync(join(folder, name), 'r');
    const bytes = Buffer.alloc(2 ** 22);
    const got = readSync(fd, bytes, 0, bytes.byteLength, at);
    closeSync(fd);
    return bytes.subarray(0, got);
  };
  const expected = Buffer.concat([Buffer.alloc(4096), second.subarray(28672, 36864)]);
  assert.ok(read('sparse', holeBytes - 12288).equals(expected));
  assert.ok(read('odd', 2 ** 20 + 3).equals(first.subarray(2 ** 20 + 3, oddBytes)));
  assert.ok(read('nothing', emptyBytes - 5000).equals(Buffer.alloc(5000)));
});

test('overlayfs over two merged runs shows the same as all layers merged', { skip }, () => {
  const identity = [0, 1];
  const stack = fc.array(arbitraryTree({ whiteouts: true }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(stack, stack, (below, run) => {
      // overlayfs does not look at the flag of a layer's root
      for (const { root } of run) root.opaque = false;
      using bench = new MountBench();
      const layers = (trees: LayerTree[]): { tree: LayerTree; devices: number[] }[] =>
        trees.map((tree) => ({ tree, devices: identity }));
      const lower = mountTree(bench, 'lower', mergeLayers(layers(below), { bottom: true }), DEVICES);
      const upper = mountTree(bench, 'upper', mergeLayers(layers(run), { bottom: false }), DEVICES);
      const shown = describeMount(bench.overlay('merged', [upper, lower]));
      assert.deepEqual(shown, describeForMount(mergeLayers(layers([...below, ...run]), { bottom: true })));
    }),
    BRIEF,
  );
});

test('a directory with a whiteout that nothing lies under does not list it', { skip }, () => {
  const root = emptyDir();
  const dir: DirNode = emptyDir();
  dir.children.set(byteString('gone'), { kind: 'whiteout' });
  dir.children.set(byteString('kept'), { kind: 'file', ...META, size: 0, extents: [] } as TreeNode);
  root.children.set(byteString('dir'), dir);
  using bench = new MountBench();
  const upper = mountTree(bench, 'upper', { root }, DEVICES);
  const lower = mountTree(bench, 'lower', { root: emptyDir() }, DEVICES);
  assert.deepEqual(readdirSync(join(bench.overlay('merged', [upper, lower]), 'dir')), ['kept']);
});

test('fsck.erofs finds nothing wrong and dump.erofs sees the same file', { skip: cannotRun('fsck.erofs') }, () => {
  fc.assert(
    fc.property(arbitraryTree({ whiteouts: true }), (tree) => {
      using bench = new MountBench();
      const file: FileNode = {
        kind: 'file',
        ...META,
        size: 20_000,
        extents: [{ fileOffset: 0, length: 20_000, device: 1, deviceOffset: 8192 }],
      };
      tree.root.children.set(byteString('judged'), file);
      const image = bench.file('tree.erofs', writeErofs(tree, { devices: RANDOM_DEVICES }));
      const devices = DEVICES.map((bytes, index) => `--device=${bench.file(`device-${index}`, bytes)}`);
      const judged = spawnSync('fsck.erofs', [...devices, image], { encoding: 'utf8' });
      assert.equal(judged.status, 0, judged.stdout + judged.stderr);
      const dumped = execFileSync('dump.erofs', ['--path=/judged', '-e', ...devices, image], { encoding: 'utf8' });
      assert.match(dumped, /Size: 20000 .*regular file/);
      assert.match(dumped, /0\.\. +20480 \| +20480 : +8192\.\. +28672 \| +20480 +# device 2/);
    }),
    BRIEF,
  );
});
