import { BLOCK_BYTES } from '../../core/block-map.ts';
import type { ChunkTable } from '../../core/chunk-table.ts';
import { checkInode, keptXattrs, refuse, splitPath } from '../entry-rules.ts';
import type { ByteString, DirNode, FileNode, LayerTree, TreeNode } from '../layer-tree.ts';

/**
 * Holds a tree that somebody else stored against the rules for layers, and its files against the chunks that are to yield
 * them. Throws INVALID_LAYER naming the entry.
 */
export function checkIndexTree(tree: LayerTree, chunks: ChunkTable): void {
  const stack: { readonly path: string; readonly dir: DirNode }[] = [{ path: '', dir: tree.root }];
  checkInode('/' as ByteString, tree.root);
  for (let frame = stack.pop(); frame !== undefined; frame = stack.pop()) {
    for (const [name, node] of frame.dir.children) {
      const path = `${frame.path}/${name}` as ByteString;
      const parts = splitPath(path);
      if (name === '' || parts.at(-1) !== name) throw refuse(path, 'has a bad name');
      checkNode(path, node, chunks);
      if (node.kind === 'dir') stack.push({ path, dir: node });
    }
  }
}

function checkNode(path: ByteString, node: TreeNode, chunks: ChunkTable): void {
  if (node.kind === 'whiteout') return;
  checkInode(path, node);
  if (node.xattrs !== undefined && keptXattrs(path, node.xattrs)?.size !== node.xattrs.size) {
    throw refuse(path, 'has xattrs that no layer can have');
  }
  if (node.kind === 'file') checkFile(path, node, chunks);
}

function checkFile(path: ByteString, file: FileNode, chunks: ChunkTable): void {
  let end = 0;
  for (const { fileOffset, length, device, deviceOffset } of file.extents) {
    const fits = fileOffset >= end && length > 0 && fileOffset + length <= file.size && device === 0;
    if (!fits || fileOffset % BLOCK_BYTES !== 0 || deviceOffset % BLOCK_BYTES !== 0) {
      throw refuse(path, 'has data in an impossible place');
    }
    end = fileOffset + length;
    if (!covered(chunks, deviceOffset, length)) throw refuse(path, 'has data that no chunk yields');
  }
}

/** Every byte lies in a chunk. */
function covered(chunks: ChunkTable, offset: number, length: number): boolean {
  const { first, end } = chunks.covering(offset, length);
  let at = offset;
  for (let index = first; index < end; index += 1) {
    const start = chunks.blocksOf(index).first * BLOCK_BYTES;
    if (start > at) return false;
    at = start + (chunks.columns.length[index] as number);
  }
  return at >= offset + length;
}
