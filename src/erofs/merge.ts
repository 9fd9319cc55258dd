import { ShoalError } from '../errors.ts';
import {
  type ByteString,
  copyDirMeta,
  type DirNode,
  emptyDir,
  type FileNode,
  type LayerTree,
  type TreeNode,
  WHITEOUT,
} from '../image/layer-tree.ts';

/** One layer of a run. */
export interface MergeLayer {
  readonly tree: LayerTree;
  /** For each device index of the tree, its index in the merged device list. */
  readonly devices: readonly number[];
}

/** A directory of the result, still ours to change, and the directory that is laid over it. */
interface Overlap {
  readonly below: DirNode;
  readonly above: DirNode;
  /** True when nothing from under the run can show in `below`, so whiteouts have nothing left to hide. */
  readonly sealed: boolean;
}

/**
 * Lays a run of neighbouring layers, bottom first, over each other (OCI image spec, layer.md#whiteouts; overlayfs rules
 * for directories). With `bottom` nothing lies under the run and no whiteout or opaque flag is left; otherwise the
 * result, laid over anything, shows what the single layers would (an implied directory that no layer of the run names
 * shows default attributes). The root is 0755 root:root, whatever layers say (containerd `archive.Apply`). Inputs stay
 * unchanged, but the result shares nodes with them: treat it as frozen. Hard links stay one object. Throws INVALID_LAYER
 * for a device without a number.
 */
export function mergeLayers(layers: readonly MergeLayer[], options: { bottom: boolean }): LayerTree {
  const root: DirNode = { ...emptyDir(), implied: true };
  for (const layer of layers) {
    const adopt = adopter(layer.devices);
    // explicit stack: trees may be as deep as a path is long
    const stack: Overlap[] = [{ below: root, above: layer.tree.root, sealed: options.bottom }];
    for (let overlap = stack.pop(); overlap !== undefined; overlap = stack.pop()) layDir(overlap, adopt, stack);
  }
  // containerd passes over what a layer says of the root, but it is not 1970 there
  const { mode, uid, gid } = emptyDir();
  Object.assign(root, { mode, uid, gid });
  delete root.xattrs;
  return { root };
}

/** Lays `above` over `below` by one level and pushes the directories both have. */
function layDir({ below, above, sealed }: Overlap, adopt: (node: TreeNode) => TreeNode, stack: Overlap[]): void {
  if (above.implied !== true) copyDirMeta(below, above);
  if (above.opaque) {
    below.children.clear();
    below.opaque = !sealed;
  }
  const bare = sealed || below.opaque;
  for (const [name, node] of above.children) {
    if (node.kind === 'whiteout') {
      if (bare) below.children.delete(name);
      else below.children.set(name, WHITEOUT);
    } else if (node.kind === 'dir') {
      stack.push({ below: dirAt(below, name, bare), above: node, sealed: bare });
    } else {
      below.children.set(name, adopt(node));
    }
  }
}

/** The directory `name` of `dir`, made when missing; one that takes a file's or whiteout's place hides all below it. */
function dirAt(dir: DirNode, name: ByteString, sealed: boolean): DirNode {
  const found = dir.children.get(name);
  if (found?.kind === 'dir') return found;
  const made: DirNode = { ...emptyDir(), implied: true };
  made.opaque = found !== undefined && !sealed;
  dir.children.set(name, made);
  return made;
}

/** Takes a node over into the merged tree: itself, or for files whose devices get other numbers one copy per node. */
function adopter(devices: readonly number[]): (node: TreeNode) => TreeNode {
  const moved = new Map<FileNode, FileNode>();
  return (node) => {
    if (node.kind !== 'file' || node.extents.every((extent) => devices[extent.device] === extent.device)) return node;
    let copy = moved.get(node);
    if (copy === undefined) {
      const extents = node.extents.map((extent) => ({ ...extent, device: deviceOf(devices, extent.device) }));
      copy = { ...node, extents };
      moved.set(node, copy);
    }
    return copy;
  };
}

function deviceOf(devices: readonly number[], device: number): number {
  const merged = devices[device];
  if (merged === undefined) throw new ShoalError('INVALID_LAYER', `layer names device ${device} of ${devices.length}`);
  return merged;
}
