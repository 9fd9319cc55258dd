import { randomUUID } from 'node:crypto';
import { chmod, lchown, lstat, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { type Lower, upperPath } from './mounts.ts';
import type { Labels } from './snapshot-info.ts';

/** Who owns the root directory of a new snapshot. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

const STAGING_PREFIX = 'new-';

/**
 * The directories `<root>/snapshots/<n>/{fs,work}`. They are made under another name and take their place by one
 * rename; nothing but a number ever becomes part of a path (B2, S10).
 */
export class SnapshotDirs {
  readonly #root: string;
  readonly #parent: string;
  readonly #log: Logger;
  /** Directories in the making: no orphans, although no snapshot has them. */
  readonly #staged = new Set<string>();

  constructor(components: { log: Logger }, init: { root: string }) {
    this.#root = init.root;
    this.#parent = join(init.root, 'snapshots');
    this.#log = components.log;
  }

  /** Makes both directories private, or throws CONFIG_INVALID when they are not ours to use. */
  async open(): Promise<void> {
    if (/[,:\\\n]/.test(this.#root)) {
      throw new ShoalError('CONFIG_INVALID', `root ${JSON.stringify(this.#root)}: mount options allow no , : \\ in it`);
    }
    await privateDirectory(this.#root);
    await privateDirectory(this.#parent);
  }

  /** A new snapshot directory without a number yet; `work` only where something will be written. */
  async stage(options: { writable: boolean; owner: Owner | undefined }): Promise<string> {
    // Known before it exists: a cleanup may see it before mkdir(2) has been heard to succeed.
    const path = join(this.#parent, `${STAGING_PREFIX}${randomUUID()}`);
    this.#staged.add(path);
    try {
      await mkdir(path, { mode: 0o700 });
      await Promise.all([
        makeFiles(join(path, 'fs'), options.owner),
        options.writable && mkdir(join(path, 'work'), 0o711),
      ]);
      return path;
    } catch (error) {
      await this.discard(path);
      throw error;
    }
  }

  /** Gives a staged directory its number. Whatever a crash left under that number goes first. */
  async adopt(staged: string, id: number): Promise<void> {
    const path = this.#pathOf(id);
    try {
      await rename(staged, path);
    } catch (error) {
      if (!hasErrno(error, 'ENOTEMPTY') && !hasErrno(error, 'EEXIST')) throw error;
      await rm(path, { recursive: true, force: true });
      await rename(staged, path);
    }
    this.#staged.delete(staged);
  }

  /** Deletes a staged directory that is not wanted after all. */
  async discard(staged: string): Promise<void> {
    await this.#delete(staged);
    this.#staged.delete(staged);
  }

  /** Deletes the directory of a snapshot that is gone; what can't be deleted now is left to the next cleanup. */
  async remove(id: number): Promise<void> {
    await this.#delete(this.#pathOf(id));
  }

  /** Names below `snapshots` that belong to no snapshot. Only valid while no snapshot is being made or removed. */
  async orphans(ids: ReadonlyMap<number, string>): Promise<string[]> {
    const known = new Set(Array.from(ids.keys(), String));
    const names = await readdir(this.#parent);
    return names.filter((name) => !known.has(name) && !this.#staged.has(join(this.#parent, name)));
  }

  /** Deletes what `orphans` gave. */
  async removeOrphans(names: readonly string[], options: { signal: AbortSignal }): Promise<void> {
    for (const name of names) {
      options.signal.throwIfAborted();
      await this.#delete(join(this.#parent, name));
    }
  }

  /**
   * Owner of the root directory of a lower. Throws UNAVAILABLE when a lazy run does not answer, STATE_CORRUPT when the
   * files of a snapshot are gone.
   */
  async ownerOf(lower: Lower): Promise<Owner> {
    try {
      const { uid, gid } = await stat(lower.kind === 'run' ? lower.path : upperPath(this.#root, lower.id));
      return { uid, gid };
    } catch (cause) {
      if (lower.kind === 'run')
        throw new ShoalError('UNAVAILABLE', `lazy layers at ${lower.path} are broken`, { cause });
      throw new ShoalError('STATE_CORRUPT', `the files of snapshot ${lower.id} are missing`, { cause });
    }
  }

  #pathOf(id: number): string {
    return join(upperPath(this.#root, id), '..');
  }

  async #delete(path: string): Promise<void> {
    try {
      await rm(path, { recursive: true, force: true });
    } catch (error) {
      this.#log.warn('snapshot directory could not be deleted, the next cleanup tries again', {
        path,
        error: (error as Error).message,
      });
    }
  }
}

async function makeFiles(path: string, owner: Owner | undefined): Promise<void> {
  await mkdir(path);
  // Not left to mkdir: the umask of a service is often 077, and a root directory nobody may enter is no rootfs.
  await chmod(path, 0o755);
  if (owner !== undefined) await lchown(path, owner.uid, owner.gid);
}

/**
 * The host ids of a user namespace's root, when labels `containerd.io/snapshot/{uid,gid}mapping` set one up
 * (`container:host:size`, comma-separated). Throws INVALID_ARGUMENT when they map no root.
 */
export function mappedOwner(labels: Labels): Owner | undefined {
  const uids = labels.get('containerd.io/snapshot/uidmapping');
  const gids = labels.get('containerd.io/snapshot/gidmapping');
  if (uids === undefined && gids === undefined) return undefined;
  return { uid: hostRoot(uids ?? '', 'uidmapping'), gid: hostRoot(gids ?? '', 'gidmapping') };
}

function hostRoot(mappings: string, label: string): number {
  for (const mapping of mappings.split(',')) {
    const [container, host, size] = /^(\d+):(\d+):(\d+)$/.exec(mapping)?.slice(1).map(Number) ?? [];
    if (container === 0 && host !== undefined && host < 0xffffffff && size !== 0) return host;
  }
  throw new ShoalError('INVALID_ARGUMENT', `label containerd.io/snapshot/${label} maps no root user`);
}

async function privateDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const found = await lstat(path);
  if (!found.isDirectory()) throw new ShoalError('CONFIG_INVALID', `${path} is not a directory`);
  if (found.uid !== process.geteuid?.()) {
    throw new ShoalError('CONFIG_INVALID', `${path} belongs to user ${found.uid}, not to the user shoal runs as`);
  }
  if ((found.mode & 0o077) !== 0) await chmod(path, 0o700);
}

function hasErrno(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}
