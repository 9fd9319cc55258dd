import fc from 'fast-check';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import {
  type ByteString,
  byteString,
  byteStringOf,
  type DirNode,
  emptyDir,
  type FileExtent,
  type InodeMeta,
  type LayerTree,
  type TreeNode,
  WHITEOUT,
} from '../../src/image/layer-tree.ts';

/** Devices that every random extent fits on. */
export const RANDOM_DEVICES = [
  { tag: 'first', blocks: 512 },
  { tag: 'second', blocks: 512 },
];

/** Any bytes a name may have, or (more often) one of a few names, so that layers meet each other. */
export const arbitraryName: fc.Arbitrary<ByteString> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom('a', 'b', 'c', 'usr', '!', '-').map(byteString) },
  {
    weight: 1,
    arbitrary: fc
      .uint8Array({ minLength: 1, maxLength: 255 })
      .map(byteStringOf)
      .filter((name) => !/[\0/]/.test(name) && name !== '.' && name !== '..'),
  },
);

const arbitraryMeta: fc.Arbitrary<InodeMeta> = fc.record({
  mode: fc.integer({ min: 0, max: 0o7777 }),
  uid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
  gid: fc.integer({ min: 0, max: 2 ** 32 - 2 }),
  mtimeSec: fc.integer({ min: -(2 ** 33), max: 2 ** 34 }),
  mtimeNsec: fc.integer({ min: 0, max: 999_999_999 }),
});

const arbitraryXattrs: fc.Arbitrary<Map<ByteString, Uint8Array>> = fc
  .array(
    fc.tuple(
      fc.constantFrom('trusted.a', 'trusted.bb', 'security.note', 'security.other').map(byteString),
      fc.oneof(fc.constantFrom(Uint8Array.of(1, 2, 3), new Uint8Array(0)), fc.uint8Array({ maxLength: 40 })),
    ),
    { minLength: 1, maxLength: 4 },
  )
  .map((pairs) => new Map(pairs));

const arbitraryInode: fc.Arbitrary<InodeMeta> = fc
  .tuple(arbitraryMeta, fc.option(arbitraryXattrs, { nil: undefined, freq: 2 }))
  .map(([meta, xattrs]) => (xattrs === undefined ? meta : { ...meta, xattrs }));

/** Runs of blocks with holes between them, somewhere on the devices. */
const arbitraryFile = fc
  .tuple(
    arbitraryInode,
    fc.array(
      fc.record({
        gap: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat({ max: 20 })),
        blocks: fc.integer({ min: 1, max: 30 }),
        device: fc.nat({ max: 1 }),
        deviceBlock: fc.nat({ max: 480 }),
        follows: fc.boolean(),
      }),
      { maxLength: 4 },
    ),
    fc.integer({ min: 0, max: 3 * BLOCK_BYTES }),
    fc.nat({ max: BLOCK_BYTES - 1 }),
  )
  .map(([meta, runs, hole, cut]): TreeNode => {
    const extents: FileExtent[] = [];
    let end = 0;
    for (const run of runs) {
      const last = extents.at(-1);
      const joined = run.follows && last !== undefined && last.deviceOffset + last.length < 480 * BLOCK_BYTES;
      extents.push({
        fileOffset: end + run.gap * BLOCK_BYTES,
        length: run.blocks * BLOCK_BYTES,
        device: joined ? last.device : run.device,
        deviceOffset: joined ? last.deviceOffset + last.length : run.deviceBlock * BLOCK_BYTES,
      });
      end += (run.gap + run.blocks) * BLOCK_BYTES;
    }
    const last = extents.pop();
    if (last !== undefined) extents.push({ ...last, length: last.length - cut });
    return { kind: 'file', ...meta, extents, size: (last === undefined ? 0 : end - cut) + hole };
  });

const arbitraryLeaf: fc.Arbitrary<TreeNode> = fc.oneof(
  { weight: 5, arbitrary: arbitraryFile },
  {
    weight: 2,
    arbitrary: fc
      .tuple(arbitraryInode, fc.uint8Array({ minLength: 1, maxLength: 600 }))
      .map(([meta, bytes]): TreeNode => {
        const target = byteStringOf(bytes.map((byte) => (byte === 0 ? 47 : byte)));
        return { kind: 'symlink', ...meta, target };
      }),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        arbitraryInode,
        fc.constantFrom<'char' | 'block'>('char', 'block'),
        fc.integer({ min: 1, max: 0xfff }),
        fc.nat({ max: 0xfffff }),
      )
      .map(([meta, kind, major, minor]): TreeNode => ({ kind, ...meta, major, minor })),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(arbitraryInode, fc.constantFrom<'fifo' | 'socket'>('fifo', 'socket'))
      .map(([meta, kind]): TreeNode => ({ kind, ...meta })),
  },
);

function arbitraryDir(depth: number, whiteouts: boolean): fc.Arbitrary<DirNode> {
  const leaves = whiteouts
    ? fc.oneof({ weight: 4, arbitrary: arbitraryLeaf }, { weight: 1, arbitrary: fc.constant<TreeNode>(WHITEOUT) })
    : arbitraryLeaf;
  const child: fc.Arbitrary<TreeNode> =
    depth === 0
      ? leaves
      : fc.oneof({ weight: 3, arbitrary: leaves }, { weight: 2, arbitrary: arbitraryDir(depth - 1, whiteouts) });
  return fc
    .tuple(
      arbitraryInode,
      fc.array(fc.tuple(arbitraryName, child), { maxLength: 6 }),
      whiteouts ? fc.integer({ min: 0, max: 5 }) : fc.constant(1),
    )
    .map(([meta, children, dice]) => ({ ...emptyDir(meta), opaque: dice === 0, children: new Map(children) }));
}

/** A random layer: all kinds of inodes, hard links, and (unless told otherwise) whiteouts and opaque directories. */
export function arbitraryTree(options: { whiteouts: boolean }): fc.Arbitrary<LayerTree> {
  return fc
    .tuple(arbitraryDir(3, options.whiteouts), fc.array(fc.tuple(fc.nat(), fc.nat(), arbitraryName), { maxLength: 5 }))
    .map(([root, links]) => {
      for (const [from, to, name] of links) linkSomewhere(root, from, to, name);
      return { root };
    });
}

/** Gives one of the tree's files a second name in one of its directories. */
function linkSomewhere(root: DirNode, from: number, to: number, name: ByteString): void {
  const dirs = [root];
  const files: TreeNode[] = [];
  for (const dir of dirs) {
    for (const node of dir.children.values()) {
      if (node.kind === 'dir') dirs.push(node);
      else if (node.kind !== 'whiteout') files.push(node);
    }
  }
  const file = files[from % Math.max(1, files.length)];
  const dir = dirs[to % dirs.length] as DirNode;
  if (file !== undefined && !dir.children.has(name)) dir.children.set(name, file);
}
