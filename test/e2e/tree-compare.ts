import { mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { sha256 } from '../../src/core/digest.ts';
import { unmount } from '../../src/kernel/mount-api.ts';
import { type LabContainerd, startContainerd } from '../lab/containerd.ts';
import { run } from '../lab/process.ts';
import { type LabRegistry, startRegistry } from '../lab/registry.ts';
import type { TreeRow } from '../lab/tree-walk.ts';
import { fetchManifest, withDirectory } from './node-lab.ts';
import { fetchConfig } from './registry-content.ts';

const WALKER = fileURLToPath(new URL('../lab/tree-walk.ts', import.meta.url));

/** The same image as containerd unpacks it for overlayfs. */
export function unpackedTree(storage: string, image: string): Promise<Map<string, TreeRow>> {
  return withDirectory(async (dir) => {
    const registry = await startRegistry({ workDir: dir, storage });
    try {
      const containerd = await startContainerd({ dir, registryHost: registry.host });
      try {
        await containerd.criPull(`${registry.host}/${image}`);
        return await treeOf(containerd, await chainIdOf(registry, image), join(dir, 'tree'));
      } finally {
        await containerd.stop();
      }
    } finally {
      await registry.stop();
    }
  });
}

/** Walks what a container of the image would see; `chainId` names the snapshot that a pull has made. */
export function treeOf(containerd: LabContainerd, chainId: string, target: string): Promise<Map<string, TreeRow>> {
  return withTree(containerd, chainId, target, async () => {
    const { stdout } = await run(process.execPath, [WALKER, target], { timeoutMs: 600_000 });
    const lines = stdout.trimEnd().split('\n');
    return new Map(lines.map((line) => JSON.parse(line) as TreeRow).map((row) => [row.path, row]));
  });
}

/** Runs `use` while the root file system of a container of the image is mounted at `target`, which is made. */
export async function withTree<T>(
  containerd: LabContainerd,
  chainId: string,
  target: string,
  use: (target: string) => T | Promise<T>,
): Promise<T> {
  const key = `tree-${chainId.slice(-12)}`;
  const snapshots = (...args: string[]) =>
    containerd.ctr(['snapshots', '--snapshotter', containerd.snapshotter, ...args]);
  await mkdir(target);
  await snapshots('prepare', key, chainId);
  await run('sh', ['-c', (await snapshots('mounts', target, key)).stdout]);
  try {
    return await use(target);
  } finally {
    await unmount(target);
    await snapshots('rm', key);
    await rmdir(target);
  }
}

/** What containerd names the snapshot of all layers by (image-spec, ChainID). */
export async function chainIdOf(registry: LabRegistry, image: string): Promise<string> {
  const { diffIds } = await fetchConfig(registry, image, await fetchManifest(registry, image));
  return diffIds.reduce((chain, diffId) => sha256(Buffer.from(`${chain} ${diffId}`)));
}

/** The entries that are not the same, as lines for people; `unpackedAt` is when unpacking began, in seconds. */
export function differences(expected: Map<string, TreeRow>, shown: Map<string, TreeRow>, unpackedAt: number): string[] {
  const lines: string[] = [];
  const names = namesIn(shown);
  for (const path of new Set([...expected.keys(), ...shown.keys()])) {
    const [theirs, ours] = [expected.get(path), shown.get(path)];
    if (isEstargzOwn(path) && ours === undefined) continue;
    if (theirs === undefined || ours === undefined) {
      lines.push(`${path}: only ${ours === undefined ? 'unpacked' : 'lazily'}`);
      continue;
    }
    for (const field of new Set([...Object.keys(theirs), ...Object.keys(ours)]) as Set<keyof TreeRow>) {
      if (field === 'mtime' && (isTimeOfUnpacking(theirs, unpackedAt) || isBefore1970(theirs, ours))) continue;
      if (field === 'links' && ours.links === names.get(ours.sameAs ?? path)) continue;
      const [wanted, got] = [JSON.stringify(theirs[field]), JSON.stringify(ours[field])];
      if (wanted !== got) lines.push(`${path}: ${field} ${got}, unpacked ${wanted}`);
    }
  }
  return lines;
}

/**
 * Unpacking gives the present time to directories that a layer only implies (its tar holds files below them, not them);
 * lazily they keep the lower layer's time. The root directory is the container's own, made a moment ago in both cases.
 */
function isTimeOfUnpacking({ path, type, mtime }: TreeRow, unpackedAt: number): boolean {
  return path === '/' || (type === 'directory' && mtime >= unpackedAt);
}

/** containerd's unpacking knows no time before 1970 and takes its first second instead. */
function isBefore1970(unpacked: TreeRow, lazily: TreeRow): boolean {
  return unpacked.mtime === 0 && lazily.mtime < 0;
}

/** How many names each file really has, by the first: overlayfs goes on counting those that a higher layer removed. */
function namesIn(tree: Map<string, TreeRow>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { path, sameAs = path } of tree.values()) counts.set(sameAs, (counts.get(sameAs) ?? 0) + 1);
  return counts;
}

/** Files of the format itself: unpacking a layer as a tar shows them, reading it as eStargz does not. */
function isEstargzOwn(path: string): boolean {
  return ['/stargz.index.json', '/.no.prefetch.landmark', '/.prefetch.landmark'].includes(path);
}
