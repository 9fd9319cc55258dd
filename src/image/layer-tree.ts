/**
 * The file tree of one layer, or of several layers merged: what every format reader produces and the EROFS writer eats.
 * Names, symlink targets and xattr names are *byte strings*: JavaScript strings with one char (0–255) per byte,
 * so that non-UTF-8 names survive and string comparison is memcmp.
 */

declare const byteStringBrand: unique symbol;

/** A string whose chars are bytes (latin1). Compare with `<`: that is memcmp order. */
export type ByteString = string & { readonly [byteStringBrand]: true };

/** UTF-8 text as a byte string. */
export function byteString(text: string): ByteString {
  return Buffer.from(text, 'utf8').toString('latin1') as ByteString;
}

/** Raw bytes as a byte string. */
export function byteStringOf(bytes: Uint8Array): ByteString {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1') as ByteString;
}

/** What all inodes have. Several directory entries may hold the same object: that is a hard link. */
export interface InodeMeta {
  /** Permission bits with setuid, setgid, sticky (0 to 0o7777). */
  mode: number;
  uid: number;
  gid: number;
  /** Seconds since 1970, may be negative. */
  mtimeSec: number;
  /** 0 to 999,999,999. */
  mtimeNsec: number;
  /** Full xattr name (`security.capability`) to value; absent when there are none. */
  xattrs?: Map<ByteString, Uint8Array>;
}

/** A piece of file content on a device: `length` bytes at `deviceOffset` (4096-aligned). */
export interface FileExtent {
  /** First byte in the file, a multiple of 4096. */
  readonly fileOffset: number;
  readonly length: number;
  /** Index into the list of devices that goes with the tree. */
  readonly device: number;
  readonly deviceOffset: number;
}

/** A regular file; byte ranges no extent covers read as zeros. Extents ascend and don't overlap. */
export interface FileNode extends InodeMeta {
  readonly kind: 'file';
  size: number;
  extents: readonly FileExtent[];
}

/** A directory. `opaque` hides what lower layers have below it. */
export interface DirNode extends InodeMeta {
  readonly kind: 'dir';
  readonly children: Map<ByteString, TreeNode>;
  opaque: boolean;
  /** No entry named it, only something below it: its attributes are those of a lower layer's directory, if one has it. */
  implied?: true;
}

export interface SymlinkNode extends InodeMeta {
  readonly kind: 'symlink';
  target: ByteString;
}

/** Character and block devices. */
export interface DeviceNode extends InodeMeta {
  readonly kind: 'char' | 'block';
  major: number;
  minor: number;
}

export interface FifoNode extends InodeMeta {
  readonly kind: 'fifo' | 'socket';
}

/** Hides a name of the layers below; has no metadata of its own. */
export interface WhiteoutNode {
  readonly kind: 'whiteout';
}

/** Anything that has an inode. */
export type InodeNode = FileNode | DirNode | SymlinkNode | DeviceNode | FifoNode;

/** Anything a directory entry may hold. */
export type TreeNode = InodeNode | WhiteoutNode;

/** The tree of one layer: device 0 is the layer's own blob unless its reader says otherwise. */
export interface LayerTree {
  readonly root: DirNode;
}

/** The one whiteout object. */
export const WHITEOUT: WhiteoutNode = { kind: 'whiteout' };

/** A directory as containerd makes it when a layer does not name it: 0755 root:root, time 0. */
export function emptyDir(meta: Partial<InodeMeta> = {}): DirNode {
  return {
    kind: 'dir',
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    opaque: false,
    children: new Map(),
    ...meta,
  };
}

/** Gives a directory the attributes of another, which an entry named; children and opaqueness stay. */
export function copyDirMeta(to: DirNode, from: DirNode): void {
  delete to.implied;
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mtimeSec = from.mtimeSec;
  to.mtimeNsec = from.mtimeNsec;
  if (from.xattrs === undefined) delete to.xattrs;
  else to.xattrs = from.xattrs;
}

/** True when some directory below the root is implied; the root's attributes come from the container's own layer. */
export function impliesDirs(tree: LayerTree): boolean {
  const stack = [tree.root];
  for (let dir = stack.pop(); dir !== undefined; dir = stack.pop()) {
    for (const child of dir.children.values()) {
      if (child.kind !== 'dir') continue;
      if (child.implied === true) return true;
      stack.push(child);
    }
  }
  return false;
}
