import { lstat, readdir } from 'node:fs/promises';
import type { Usage } from './snapshot-info.ts';

/** lstat calls under way at once: enough to keep the four libuv threads busy, few enough to leave them to others. */
const PARALLEL_STATS = 8;
/** st_blocks counts these, whatever the file system's block size. */
const STAT_BLOCK_BYTES = 512;

const SLASH = Buffer.from('/');

/**
 * Disk space of a directory tree as `du` counts it: blocks, each hard-linked file once, the root included. Entries that
 * vanish meanwhile don't count. Rejects with the signal's reason.
 */
export async function diskUsage(root: string, options: { signal: AbortSignal }): Promise<Usage> {
  const linked = new Set<string>();
  // Bytes, not strings: file names of an image need not be UTF-8.
  const directories: Buffer[] = [];
  let sizeBytes = 0;
  let inodes = 0;

  const count = async (path: Buffer): Promise<void> => {
    const stat = await unlessGone(lstat(path));
    if (stat === undefined) return;
    if (stat.isDirectory()) directories.push(path);
    else if (stat.nlink > 1) {
      const inode = `${stat.dev}:${stat.ino}`;
      if (linked.has(inode)) return;
      linked.add(inode);
    }
    sizeBytes += stat.blocks * STAT_BLOCK_BYTES;
    inodes += 1;
  };

  await count(Buffer.from(root));
  for (let directory = directories.pop(); directory !== undefined; directory = directories.pop()) {
    options.signal.throwIfAborted();
    const parent = directory;
    const names = (await unlessGone(readdir(parent, { encoding: 'buffer' }))) ?? [];
    for (let first = 0; first < names.length; first += PARALLEL_STATS) {
      const some = names.slice(first, first + PARALLEL_STATS);
      await Promise.all(some.map((name) => count(Buffer.concat([parent, SLASH, name]))));
    }
  }
  return { sizeBytes, inodes };
}

async function unlessGone<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
