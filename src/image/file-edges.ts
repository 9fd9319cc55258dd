import { BLOCK_BYTES } from '../core/block-map.ts';
import { type FileRun, fileEdges, LARGE_FILE_BYTES } from '../core/policy/file-edges.ts';
import type { FileNode, LayerTree } from './layer-tree.ts';

/** Where large files begin and end on each device that the tree numbers, in blocks of 4096 bytes; see `fileEdges`. */
export function edgesByDevice(tree: LayerTree): readonly Uint32Array[] {
  const runs: FileRun[][] = [];
  const open = [tree.root];
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    for (const child of dir.children.values()) {
      if (child.kind === 'dir') open.push(child);
      else if (child.kind === 'file' && child.size >= LARGE_FILE_BYTES) addRuns(runs, child);
    }
  }
  return Array.from(runs, (each = []) => Uint32Array.from(fileEdges(each), (edge) => edge / BLOCK_BYTES));
}

/** Extents that follow each other on their device are one run, whatever holes lie between them in the file. */
function addRuns(runs: FileRun[][], { extents }: FileNode): void {
  let start = 0;
  let end = -1;
  let on = -1;
  const close = (): void => {
    if (end < start) return;
    const known = runs[on];
    if (known === undefined) runs[on] = [{ start, end }];
    else known.push({ start, end });
  };
  for (const { device, deviceOffset, length } of extents) {
    if (device !== on || deviceOffset !== end) {
      close();
      start = deviceOffset;
      on = device;
    }
    end = Math.ceil((deviceOffset + length) / BLOCK_BYTES) * BLOCK_BYTES;
  }
  close();
}
