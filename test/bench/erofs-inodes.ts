/** Prints the time and memory that merging and writing trees of 100,000 inodes take: `node test/bench/erofs-inodes.ts`. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type MergeLayer, mergeLayers } from '../../src/erofs/merge.ts';
import { parseSuperblock } from '../../src/erofs/superblock.ts';
import { writeErofs } from '../../src/erofs/writer.ts';
import {
  byteString,
  type DirNode,
  emptyDir,
  type FileNode,
  type LayerTree,
  type TreeNode,
} from '../../src/image/layer-tree.ts';
import { decodeTree, encodeTree } from '../../src/image/tree-codec.ts';

const FILES = 100_000;
const FILES_PER_DIR = 40;
const DEVICE_BLOCKS = 2 ** 24;

function file(index: number): FileNode {
  const size = 1 + ((index * 7919) % 60_000);
  const node: FileNode = {
    kind: 'file',
    mode: 0o644,
    uid: index % 3,
    gid: 0,
    mtimeSec: 1_700_000_000 + index,
    mtimeNsec: (index * 1009) % 1_000_000_000,
    size,
    extents: [{ fileOffset: 0, length: size, device: 0, deviceOffset: index * 65536 }],
  };
  if (index % 10 === 0) node.xattrs = new Map([[byteString('user.note'), Buffer.from(`value ${index % 500}`)]]);
  return node;
}

/** `count` files, `perDir` to a directory three levels down. */
function layer(count: number, perDir: number, from: number): LayerTree {
  const root = emptyDir();
  let dir: DirNode = root;
  for (let index = 0; index < count; index += 1) {
    if (index % perDir === 0 && perDir < count) {
      const group = index / perDir;
      dir = childDir(childDir(childDir(root, 'usr'), `package-${group % 50}`), `directory_${group}`);
    }
    const node: TreeNode = file(from + index);
    dir.children.set(byteString(`module-${from + ((index * 31) % count)}-with-a-usual-name.js`), node);
  }
  return { root };
}

function childDir(parent: DirNode, text: string): DirNode {
  const name = byteString(text);
  const found = parent.children.get(name);
  if (found?.kind === 'dir') return found;
  const made = emptyDir();
  parent.children.set(name, made);
  return made;
}

function seconds<T>(label: string, work: () => T): T {
  const started = performance.now();
  const result = work();
  console.log(`${label}: ${((performance.now() - started) / 1000).toFixed(3)} s`);
  return result;
}

const devices = Array.from({ length: 10 }, (_, index) => ({
  tag: String(index).padStart(64, '0'),
  blocks: DEVICE_BLOCKS,
}));

/** One layer's tree merged alone and written. */
function mergeAndWrite(layers: readonly MergeLayer[]): void {
  const started = performance.now();
  const merged = seconds('merge', () => mergeLayers(layers, { bottom: true }));
  const image = seconds('write', () => writeErofs(merged, { devices }));
  console.log(`merge and write: ${((performance.now() - started) / 1000).toFixed(3)} s`);
  const { inodes } = parseSuperblock(image);
  console.log(`image: ${inodes} inodes, ${(image.byteLength / 2 ** 20).toFixed(1)} MiB`);
}

/** Each runs in a process of its own, so that its peak RSS is its own; trees are made before the clock starts. */
const SCENARIOS: Record<string, () => void> = {
  'ten layers of 10000 files each': () =>
    mergeAndWrite(
      Array.from({ length: 10 }, (_, index) => ({
        tree: layer(FILES / 10, FILES_PER_DIR, (index * FILES) / 10),
        devices: [index],
      })),
    ),
  'one layer of 100000 files': () => mergeAndWrite([{ tree: layer(FILES, FILES_PER_DIR, 0), devices: [3] }]),
  'one directory of 100000 files': () => mergeAndWrite([{ tree: layer(FILES, FILES, 0), devices: [3] }]),
  'tree codec, 100000 files': () => {
    const tree = layer(FILES, FILES_PER_DIR, 0);
    const encoded = seconds('encode', () => encodeTree(tree));
    seconds('decode', () => decodeTree(encoded));
    console.log(`encoded: ${(encoded.byteLength / 2 ** 20).toFixed(1)} MiB`);
  },
};

const scenario = SCENARIOS[process.argv[2] ?? ''];
if (scenario !== undefined) {
  const before = process.resourceUsage().maxRSS;
  scenario();
  const after = process.resourceUsage().maxRSS;
  console.log(`peak RSS: ${(after / 1024).toFixed(0)} MiB (an idle process: ${(before / 1024).toFixed(0)} MiB)`);
} else {
  for (const name of Object.keys(SCENARIOS)) {
    console.log(`\n${name}`);
    execFileSync(process.execPath, [fileURLToPath(import.meta.url), name], { stdio: 'inherit', timeout: 120_000 });
  }
}
