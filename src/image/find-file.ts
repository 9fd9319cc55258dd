import { type ByteString, byteString, type DirNode, type LayerTree, type TreeNode } from './layer-tree.ts';

/** As many as Linux follows in one path (path_resolution(7)). */
const MAX_SYMLINKS = 40;

/** The object at an absolute path of the tree, through symlinks; undefined when there is none. Never leaves the tree. */
export function findInTree(tree: LayerTree, path: string): TreeNode | undefined {
  /** Parts still to walk, the next one last. */
  const left = partsOf(byteString(path));
  const above: DirNode[] = [];
  let node: TreeNode = tree.root;
  let links = 0;
  for (let part = left.pop(); part !== undefined; part = left.pop()) {
    if (node.kind !== 'dir') return undefined;
    if (part === '..') {
      node = above.pop() ?? tree.root;
      continue;
    }
    const child: TreeNode | undefined = node.children.get(part);
    if (child === undefined) return undefined;
    if (child.kind !== 'symlink') {
      above.push(node);
      node = child;
      continue;
    }
    links += 1;
    if (links > MAX_SYMLINKS) return undefined;
    if (child.target.startsWith('/')) {
      above.length = 0;
      node = tree.root;
    }
    left.push(...partsOf(child.target));
  }
  return node;
}

function partsOf(path: ByteString): ByteString[] {
  return (path.split('/') as ByteString[]).filter((part) => part !== '' && part !== '.').reverse();
}
