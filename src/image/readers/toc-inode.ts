import { emptyDir, type FileNode, type InodeMeta, type InodeNode } from '../layer-tree.ts';
import type { TocEntry } from './estargz-toc.ts';

/** The inode that a TOC entry describes; a file's extents are still to be filled in. */
export function inodeOf(entry: TocEntry, type: Exclude<TocEntry['type'], 'chunk' | 'hardlink'>): InodeNode {
  const meta: InodeMeta = {
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeSec: entry.mtimeSec,
    mtimeNsec: entry.mtimeNsec,
  };
  if (entry.xattrs !== undefined) meta.xattrs = entry.xattrs;
  switch (type) {
    case 'reg':
      return { ...meta, kind: 'file', size: entry.size, extents: [] } satisfies FileNode;
    case 'dir':
      return emptyDir(meta);
    case 'symlink':
      return { ...meta, kind: 'symlink', target: entry.linkName };
    case 'fifo':
      return { ...meta, kind: 'fifo' };
    default:
      return { ...meta, kind: type, major: entry.devMajor, minor: entry.devMinor };
  }
}
