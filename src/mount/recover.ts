import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { unmount } from '../kernel/mount-api.ts';
import { listMounts, type MountEntry } from './table.ts';

/** Mounts can hide one another, and unmounting one can uncover the next; more rounds than this means no progress. */
const MAX_ROUNDS = 16;

/** What became of the mounts of a former life. */
export interface RecoverReport {
  readonly unmounted: readonly string[];
  /** Busy: out of the tree, alive until their last user is gone. */
  readonly detached: readonly string[];
  readonly failed: readonly { readonly target: string; readonly error: unknown }[];
}

/** The mounts below `<root>/mnt` that a former daemon left, in the order in which they can be unmounted. */
export function findLeftovers(root: string): MountEntry[] {
  const top = mountDirectory(root);
  return top === undefined ? [] : listMounts({ under: top }).reverse();
}

/** Unmounts everything below `<root>/mnt`, detaching what is busy; reports rather than throws what the kernel refuses. */
export async function unmountAll(root: string): Promise<RecoverReport> {
  const unmounted: string[] = [];
  const detached: string[] = [];
  const failed = new Map<number, { target: string; error: unknown }>();
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const left = findLeftovers(root).filter((mount) => !failed.has(mount.id));
    if (left.length === 0) break;
    for (const { id, target } of left) {
      try {
        const outcome = await unmount(target);
        if (outcome === 'unmounted') unmounted.push(target);
        if (outcome === 'detached') detached.push(target);
      } catch (error) {
        failed.set(id, { target, error });
      }
    }
  }
  return { unmounted, detached, failed: [...failed.values()] };
}

// mountinfo shows resolved paths
function mountDirectory(root: string): string | undefined {
  try {
    return realpathSync(join(root, 'mnt'));
  } catch {
    return undefined;
  }
}
