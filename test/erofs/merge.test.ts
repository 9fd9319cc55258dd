import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { mergeLayers } from '../../src/erofs/merge.ts';
import { hasCode } from '../../src/errors.ts';
import {
  type ByteString,
  byteString,
  type DirNode,
  emptyDir,
  type FileNode,
  type InodeNode,
  type LayerTree,
  type TreeNode,
  WHITEOUT,
} from '../../src/image/layer-tree.ts';
import { decodeTree, encodeTree } from '../../src/image/tree-codec.ts';
import { arbitraryTree } from './arbitrary-tree.ts';
import { describeTree, extentsOf, type PathFacts } from './describe-tree.ts';

const META = { mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };
const BOTTOM = { bottom: true };
const MIDDLE = { bottom: false };

type Shape = { [name: string]: Shape | TreeNode | 'file' | 'whiteout' };

/** A directory from an object literal; `opaque` in front of the name's value is set by the caller. */
function dirOf(shape: Shape, change: Partial<DirNode> = {}): DirNode {
  const children = new Map<ByteString, TreeNode>();
  for (const [name, value] of Object.entries(shape)) children.set(byteString(name), nodeOf(value));
  return { ...emptyDir(), ...change, children };
}

function nodeOf(value: Shape[string]): TreeNode {
  if (value === 'file') return { kind: 'file', ...META, size: 0, extents: [] };
  if (value === 'whiteout') return WHITEOUT;
  return 'kind' in value ? (value as TreeNode) : dirOf(value as Shape);
}

function layer(root: DirNode, devices: readonly number[] = [0, 1]): { tree: LayerTree; devices: readonly number[] } {
  return { tree: { root }, devices };
}

function paths(tree: LayerTree): string[] {
  return Object.entries(describeTree(tree))
    .map(([path, { kind, rest }]) => `${path} ${kind}${rest === true ? ' opaque' : ''}`)
    .sort();
}

test('upper directories win with their metadata and add their children', () => {
  const below = { mode: 0o700, xattrs: new Map([[byteString('user.a'), new Uint8Array(1)]]) };
  const low = layer(dirOf({ etc: dirOf({ hosts: 'file', passwd: 'file' }, below) }));
  const above = { mode: 0o555, mtimeSec: 9 };
  const high = layer(dirOf({ etc: dirOf({ hosts: 'whiteout', group: 'file' }, above) }));
  const merged = mergeLayers([low, high], BOTTOM);
  assert.deepEqual(paths(merged), ['/ dir', '/etc dir', '/etc/group file', '/etc/passwd file']);
  const etc = merged.root.children.get(byteString('etc')) as DirNode;
  assert.equal(etc.mode, 0o555);
  assert.equal(etc.mtimeSec, 9);
  assert.equal(etc.xattrs, undefined);
});

test('the root is 0755 root:root whatever layers say of it, as containerd makes it', () => {
  const said = {
    mode: 0o700,
    uid: 1000,
    gid: 7,
    mtimeSec: 9,
    xattrs: new Map([[byteString('user.a'), new Uint8Array(1)]]),
  };
  const { root } = mergeLayers([layer(dirOf({}, said))], BOTTOM);
  const { mode, uid, gid, mtimeSec, xattrs } = root;
  assert.deepEqual([mode, uid, gid, mtimeSec, xattrs], [0o755, 0, 0, 9, undefined]);
});

test('an opaque directory hides what is below it and keeps its own children', () => {
  const low = layer(dirOf({ dir: { old: 'file', sub: { deep: 'file' } } }));
  const high = layer(dirOf({ dir: dirOf({ sub: { fresh: 'file' } }, { opaque: true }) }));
  assert.deepEqual(paths(mergeLayers([low, high], BOTTOM)), [
    '/ dir',
    '/dir dir',
    '/dir/sub dir',
    '/dir/sub/fresh file',
  ]);
  assert.deepEqual(paths(mergeLayers([low, high], MIDDLE))[1], '/dir dir opaque');
});

test('a directory over a whiteout or a file is opaque for the layers under the run', () => {
  for (const between of ['whiteout', 'file'] as const) {
    const run = [layer(dirOf({ x: between })), layer(dirOf({ x: { fresh: 'file' } }))];
    assert.deepEqual(paths(mergeLayers(run, MIDDLE)), ['/ dir', '/x dir opaque', '/x/fresh file'], between);
    assert.deepEqual(paths(mergeLayers(run, BOTTOM)), ['/ dir', '/x dir', '/x/fresh file'], between);
  }
});

test('whiteouts stay only where something under the run could show', () => {
  const run = [
    layer(dirOf({ a: 'file', d: dirOf({}, { opaque: true }) })),
    layer(dirOf({ a: 'whiteout', b: 'whiteout', d: { c: 'whiteout' } })),
  ];
  assert.deepEqual(paths(mergeLayers(run, MIDDLE)), ['/ dir', '/a whiteout', '/b whiteout', '/d dir opaque']);
  assert.deepEqual(paths(mergeLayers(run, BOTTOM)), ['/ dir', '/d dir']);
});

test('below an opaque directory no whiteout is left, however deep', () => {
  const opaque = dirOf({ sub: { deep: { old: 'file' } } }, { opaque: true });
  const run = [layer(dirOf({ dir: opaque })), layer(dirOf({ dir: { sub: { deep: { old: 'whiteout' } } } }))];
  const expected = ['/ dir', '/dir dir opaque', '/dir/sub dir', '/dir/sub/deep dir'];
  assert.deepEqual(paths(mergeLayers(run, MIDDLE)), expected);
});

test('files get the device numbers of the merged list and stay hard links', () => {
  const node: FileNode = {
    kind: 'file',
    ...META,
    size: 4096,
    extents: [{ fileOffset: 0, length: 4096, device: 0, deviceOffset: 0 }],
  };
  const merged = mergeLayers([layer(dirOf({})), layer(dirOf({ a: node, d: { b: node } }), [7])], BOTTOM);
  const a = merged.root.children.get(byteString('a'));
  const d = merged.root.children.get(byteString('d'));
  assert.ok(a?.kind === 'file' && d?.kind === 'dir');
  assert.equal(a.extents[0]?.device, 7);
  assert.equal(d.children.get(byteString('b')), a);
  assert.equal(node.extents[0]?.device, 0);
});

test('a device without a number is INVALID_LAYER', () => {
  const node: FileNode = {
    kind: 'file',
    ...META,
    size: 1,
    extents: [{ fileOffset: 0, length: 1, device: 1, deviceOffset: 0 }],
  };
  assert.throws(
    () => mergeLayers([layer(dirOf({ a: node }), [0])], BOTTOM),
    (error) => hasCode(error, 'INVALID_LAYER'),
  );
});

test('trees 5000 directories deep merge without recursion', () => {
  const deep = (leaf: string): DirNode => {
    let dir = dirOf({ [leaf]: 'file' });
    for (let depth = 0; depth < 5000; depth += 1) dir = { ...emptyDir(), children: new Map([[byteString('d'), dir]]) };
    return dir;
  };
  let found: TreeNode | undefined = mergeLayers([layer(deep('low')), layer(deep('high'))], BOTTOM).root;
  for (let depth = 0; depth < 5000; depth += 1)
    found = found?.kind === 'dir' ? found.children.get(byteString('d')) : undefined;
  assert.ok(found?.kind === 'dir');
  assert.deepEqual([...found.children.keys()].sort(), ['high', 'low']);
});

/** One path as the naive model knows it; `identity` is the same for hard links only. */
interface ModelEntry {
  node: InodeNode;
  identity: string;
  devices: readonly number[];
}

/** Applies layers one after another to a flat path map, the way one would explain the rules on paper. */
function naiveMerge(layers: readonly { tree: LayerTree; devices: readonly number[] }[]): Map<string, ModelEntry> {
  const model = new Map<string, ModelEntry>();
  const removeBelow = (path: string): void => {
    for (const known of [...model.keys()])
      if (known.startsWith(path === '/' ? '/' : `${path}/`) && known !== '/') model.delete(known);
  };
  for (const [index, { tree, devices }] of layers.entries()) {
    const identities = new Map<TreeNode, string>();
    const entries: [string, TreeNode][] = [['/', tree.root]];
    for (const [path, node] of entries) {
      if (node.kind !== 'dir') continue;
      for (const [name, child] of node.children) entries.push([path === '/' ? `/${name}` : `${path}/${name}`, child]);
    }
    // first everything that hides lower layers, then what this layer adds
    for (const [path, node] of entries) {
      if (node.kind === 'whiteout') {
        removeBelow(path);
        model.delete(path);
      } else if (node.kind === 'dir' && node.opaque) {
        removeBelow(path);
      }
    }
    for (const [path, node] of entries) {
      if (node.kind === 'whiteout') continue;
      if (node.kind !== 'dir' || model.get(path)?.node.kind !== 'dir') removeBelow(path);
      const identity = identities.get(node) ?? `${index}:${path}`;
      identities.set(node, identity);
      model.set(path, { node, identity, devices });
    }
  }
  return model;
}

/** The model in the shape `describeTree` gives. */
function describeModel(model: Map<string, ModelEntry>): Record<string, PathFacts> {
  const root = emptyDir();
  const made = new Map<string, TreeNode>();
  const ordered = [...model].sort(([a], [b]) => a.split('/').length - b.split('/').length);
  const dirs = new Map<string, DirNode>();
  for (const [path, { node, identity, devices }] of ordered) {
    const key = node.kind === 'dir' ? path : identity;
    const copy = made.get(key) ?? copyOf(node, devices, path === '/' ? root : undefined);
    made.set(key, copy);
    if (copy.kind === 'dir') dirs.set(path, copy);
    const cut = path.lastIndexOf('/');
    if (path !== '/')
      dirs.get(cut === 0 ? '/' : path.slice(0, cut))?.children.set(path.slice(cut + 1) as ByteString, copy);
  }
  // layers have no say in it
  delete Object.assign(root, { mode: 0o755, uid: 0, gid: 0 }).xattrs;
  return describeTree({ root });
}

function copyOf(node: InodeNode, devices: readonly number[], root: DirNode | undefined): TreeNode {
  if (node.kind === 'dir') return Object.assign(root ?? emptyDir(), { ...node, opaque: false, children: new Map() });
  if (node.kind !== 'file') return { ...node };
  const extents = extentsOf(node).map((extent) => ({ ...extent, device: devices[extent.device] as number }));
  return { ...node, extents };
}

const arbitraryStack = fc.array(
  fc.record({
    tree: arbitraryTree({ whiteouts: true }),
    devices: fc.constantFrom<readonly number[]>([0, 1], [4, 2], [3, 5]),
  }),
  { minLength: 1, maxLength: 5 },
);

test('any stack merges to what the rules on paper say', () => {
  fc.assert(
    fc.property(arbitraryStack, (layers) => {
      const before = layers.map(({ tree }) => describeTree(tree));
      assert.deepEqual(describeTree(mergeLayers(layers, BOTTOM)), describeModel(naiveMerge(layers)));
      assert.deepEqual(
        layers.map(({ tree }) => describeTree(tree)),
        before,
        'inputs changed',
      );
    }),
    { numRuns: 500 },
  );
});

test('a run merged for the middle, laid over any layers, shows the same as all of them merged', () => {
  fc.assert(
    fc.property(arbitraryStack, arbitraryStack, (below, run) => {
      const whole = mergeLayers([...below, ...run], BOTTOM);
      const middle = mergeLayers(run, MIDDLE);
      const devices = Array.from({ length: 6 }, (_, index) => index);
      assert.deepEqual(describeTree(mergeLayers([...below, { tree: middle, devices }], BOTTOM)), describeTree(whole));
      const base = mergeLayers(below, MIDDLE);
      const twice = mergeLayers(
        [
          { tree: base, devices },
          { tree: middle, devices },
        ],
        BOTTOM,
      );
      assert.deepEqual(describeTree(twice), describeTree(whole));
    }),
    { numRuns: 500 },
  );
});

test('an implied directory keeps the attributes of the one below, also after a trip to disk', () => {
  const implied = (shape: Shape): DirNode => dirOf(shape, { implied: true });
  const lower = dirOf({ etc: dirOf({ old: 'file' }, { mode: 0o1700, uid: 7 }) });
  const upper = implied({ etc: implied({ fresh: 'file' }), srv: implied({ app: 'file' }) });
  const stored = decodeTree(encodeTree({ root: upper }));
  const { root } = mergeLayers([layer(lower), { tree: stored, devices: [0] }], BOTTOM);
  const etc = root.children.get(byteString('etc')) as DirNode;
  assert.deepEqual([etc.mode, etc.uid, [...etc.children.keys()]], [0o1700, 7, ['old', 'fresh']]);
  assert.equal((root.children.get(byteString('srv')) as DirNode).mode, 0o755);
});
