import { hash } from 'node:crypto';
import { BLOCK_BYTES } from '../../src/core/block-map.ts';
import type { FileExtent, FileNode, LayerTree, TreeNode } from '../../src/image/layer-tree.ts';

/** One path of a tree in plain values, so that two trees can be compared with deepEqual. */
export interface PathFacts {
  kind: string;
  /** mode, uid, gid, mtime seconds, nanoseconds. */
  meta: number[];
  xattrs: [string, string][];
  /** The first path (in memcmp order of a breadth-first walk) that has this inode. */
  sameAs: string;
  /** Target, device numbers, file content, opaque flag. */
  rest: unknown;
}

/** All paths of a tree; `content` says what of a file is compared. Walks without recursion. */
export function describeTree(
  tree: LayerTree,
  content: (file: FileNode) => unknown = extentsOf,
): Record<string, PathFacts> {
  const paths: Record<string, PathFacts> = {};
  const first = new Map<TreeNode, string>();
  const queue: [string, TreeNode][] = [['/', tree.root]];
  for (const [path, node] of queue) {
    if (node.kind !== 'whiteout' && !first.has(node)) first.set(node, path);
    paths[path] = factsOf(node, first.get(node) ?? path, content);
    if (node.kind !== 'dir') continue;
    const prefix = path === '/' ? '/' : `${path}/`;
    for (const name of [...node.children.keys()].sort()) {
      queue.push([prefix + name, node.children.get(name) as TreeNode]);
    }
  }
  return paths;
}

function factsOf(node: TreeNode, sameAs: string, content: (file: FileNode) => unknown): PathFacts {
  if (node.kind === 'whiteout') return { kind: 'whiteout', meta: [], xattrs: [], sameAs, rest: undefined };
  const xattrs = [...(node.xattrs ?? [])].map(([name, value]): [string, string] => [name, shownValue(value)]);
  return {
    kind: node.kind,
    meta: [node.mode, node.uid, node.gid, node.mtimeSec, node.mtimeNsec],
    xattrs: xattrs.sort(([a], [b]) => (a < b ? -1 : 1)),
    sameAs,
    rest: restOf(node, content),
  };
}

/** An xattr value as text: hex, or the digest of a long one. */
export function shownValue(value: Uint8Array): string {
  return value.byteLength > 64 ? hash('sha256', value) : Buffer.from(value).toString('hex');
}

function restOf(node: TreeNode, content: (file: FileNode) => unknown): unknown {
  switch (node.kind) {
    case 'file':
      return [node.size, content(node)];
    case 'dir':
      return node.opaque;
    case 'symlink':
      return node.target;
    case 'char':
    case 'block':
      return [node.major, node.minor];
    default:
      return undefined;
  }
}

/** Extents with neighbours joined and ends rounded to blocks (never beyond the file). */
export function extentsOf(file: FileNode): FileExtent[] {
  const joined: FileExtent[] = [];
  for (const extent of file.extents) {
    const whole = Math.ceil(extent.length / BLOCK_BYTES) * BLOCK_BYTES;
    const last = joined.at(-1);
    const continues =
      last !== undefined &&
      last.device === extent.device &&
      last.fileOffset + last.length === extent.fileOffset &&
      last.deviceOffset + last.length === extent.deviceOffset;
    if (continues) joined[joined.length - 1] = { ...last, length: last.length + whole };
    else joined.push({ ...extent, length: whole });
  }
  return joined.map((extent) => ({ ...extent, length: Math.min(extent.length, file.size - extent.fileOffset) }));
}
