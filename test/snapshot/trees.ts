import { hash } from 'node:crypto';
import {
  chmodSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

/** A change to a directory tree; paths start with a slash. */
export type Change = (root: string) => void;

export const createFile = (path: string, content: string, mode: number): Change => {
  return (root) => {
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), mode);
  };
};

export const createDir = (path: string, mode: number): Change => {
  return (root) => {
    mkdirSync(join(root, path));
    chmodSync(join(root, path), mode);
  };
};

export const removeAll = (path: string): Change => {
  return (root) => rmSync(join(root, path), { recursive: true });
};

export const chown = (path: string, uid: number, gid: number): Change => {
  return (root) => lchownSync(join(root, path), uid, gid);
};

export const rename = (from: string, to: string): Change => {
  return (root) => renameSync(join(root, from), join(root, to));
};

export const link = (from: string, to: string): Change => {
  return (root) => linkSync(join(root, from), join(root, to));
};

/** Several changes, one after the other. */
export const apply = (...changes: readonly Change[]): Change => {
  return (root) => {
    for (const change of changes) change(root);
  };
};

/** Everything in a tree that a layer must keep: one line per entry, sorted by path; not times. */
export function describeTree(root: string): string[] {
  const lines: string[] = [];
  const visit = (path: string): void => {
    const at = join(root, path);
    const stat = lstatSync(at);
    let content = '';
    if (stat.isFile()) content = `${stat.size} ${hash('sha256', readFileSync(at))}`;
    else if (stat.isSymbolicLink()) content = readlinkSync(at);
    else if (!stat.isDirectory()) content = String(stat.rdev);
    lines.push(`${path || '/'} ${stat.mode.toString(8)} ${stat.uid}:${stat.gid} ${content}`);
    if (stat.isDirectory()) for (const name of readdirSync(at).sort()) visit(`${path}/${name}`);
  };
  visit('');
  return lines;
}
