import { readFile } from 'node:fs/promises';
import type { ByteString, DirNode, FileNode, InodeNode, LayerTree } from '../../src/image/layer-tree.ts';

/** One entry as test/fixtures/small/tree.jsonl has it; paths and targets are percent-encoded bytes. */
export interface TreeRow {
  path: string;
  type: string;
  mode: string;
  uid: number;
  gid: number;
  mtimeNs: string;
  size?: number;
  links?: number;
  sha256?: string;
  target?: string;
  device?: number[];
  xattrs?: Record<string, string>;
}

/** The rows of a tree.jsonl below test/fixtures. */
export async function expectedRows(name: string): Promise<TreeRow[]> {
  const text = await readFile(new URL(`../fixtures/${name}`, import.meta.url), 'utf8');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as TreeRow);
}

/** Every entry of a merged tree as rows, sorted by path; `contentSha256` gives the hex digest of a file's bytes. */
export async function treeRows(
  tree: LayerTree,
  contentSha256: (file: FileNode) => Promise<string>,
): Promise<TreeRow[]> {
  const entries: { path: ByteString; node: InodeNode }[] = [];
  const links = new Map<object, number>();
  const walk = (path: string, node: InodeNode): void => {
    entries.push({ path: path as ByteString, node });
    links.set(node, (links.get(node) ?? 0) + 1);
    if (node.kind !== 'dir') return;
    for (const [name, child] of (node as DirNode).children) {
      if (child.kind === 'whiteout') throw new Error(`whiteout left at ${path}/${name}`);
      walk(path === '' ? name : `${path}/${name}`, child);
    }
  };
  walk('', tree.root);
  const rows: TreeRow[] = [];
  for (const { path, node } of entries) {
    const row: TreeRow = {
      path: path === '' ? '/' : quote(path),
      type: node.kind,
      mode: node.mode.toString(8),
      uid: node.uid,
      gid: node.gid,
      mtimeNs: String(BigInt(node.mtimeSec) * 1_000_000_000n + BigInt(node.mtimeNsec)),
    };
    if (node.kind === 'file') {
      row.size = node.size;
      row.links = links.get(node) as number;
      row.sha256 = await contentSha256(node);
    }
    if (node.kind === 'symlink') row.target = quote(node.target);
    if (node.kind === 'char' || node.kind === 'block') row.device = [node.major, node.minor];
    if (node.xattrs !== undefined) {
      row.xattrs = Object.fromEntries(
        [...node.xattrs].map(([name, value]) => [name, Buffer.from(value).toString('hex')]),
      );
    }
    rows.push(row);
  }
  return rows.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Python's urllib.parse.quote_from_bytes. */
function quote(bytes: ByteString): string {
  return bytes.replace(
    /[^A-Za-z0-9_.\-~/]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}
