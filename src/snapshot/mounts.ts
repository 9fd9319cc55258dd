import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import type { ParentLink, SnapshotChain } from './metastore.ts';

/** One mount as containerd passes it to mount(2) (containerd api/types `Mount`). */
export interface Mount {
  readonly type: 'bind' | 'overlay';
  readonly source: string;
  /** Path below the mount point; always empty. */
  readonly target: string;
  readonly options: readonly string[];
}

/** A lower directory of a snapshot: the files of one unpacked snapshot, or where a run of lazy ones is mounted. */
export type Lower = { readonly kind: 'plain'; readonly id: number } | { readonly kind: 'run'; readonly path: string };

/** Neighbouring ancestors that are mounted as one: all lazy, or a single unpacked one. */
export type Run =
  | { readonly kind: 'plain'; readonly id: number }
  | {
      readonly kind: 'lazy';
      /** Id of the topmost snapshot of the run. */
      readonly id: number;
      /** Blobs, bottom to top. */
      readonly layers: readonly Digest[];
      /** True when nothing lies below: its whiteouts hide nothing. */
      readonly bottom: boolean;
    };

/** Directory with the files of snapshot `id`. */
export function upperPath(root: string, id: number): string {
  return join(root, 'snapshots', String(id), 'fs');
}

/** Overlayfs work directory of snapshot `id`. */
export function workPath(root: string, id: number): string {
  return join(root, 'snapshots', String(id), 'work');
}

/** Cuts a chain (nearest first) into what is mounted together, nearest first. */
export function cutRuns(parents: readonly ParentLink[]): readonly Run[] {
  const runs: Run[] = [];
  for (let at = 0; at < parents.length; ) {
    const top = parents[at] as ParentLink;
    const layers: Digest[] = [];
    for (let link: ParentLink | undefined = top; link?.lazy !== undefined; link = parents[at]) {
      layers.push(link.lazy);
      at += 1;
    }
    if (layers.length === 0) {
      runs.push({ kind: 'plain', id: top.id });
      at += 1;
    } else {
      runs.push({ kind: 'lazy', id: top.id, layers: layers.reverse(), bottom: at === parents.length });
    }
  }
  return runs;
}

/**
 * The mounts of a snapshot, shaped as containerd's overlayfs snapshotter does: bind with no parent or for a view of one
 * lower, else one overlay. `lowers` nearest first; `overlayOptions` end an overlay's options (`index=off`).
 */
export function mountsOf(snapshot: {
  readonly root: string;
  readonly chain: Pick<SnapshotChain, 'id' | 'kind'>;
  readonly lowers: readonly Lower[];
  readonly overlayOptions: readonly string[];
}): Mount[] {
  const { root, chain, lowers } = snapshot;
  const paths = lowers.map((lower) => (lower.kind === 'plain' ? upperPath(root, lower.id) : lower.path));
  const upper = upperPath(root, chain.id);
  const writable = chain.kind === 'active';
  if (paths.length === 0) return [bind(upper, writable ? 'rw' : 'ro')];
  if (!writable && paths.length === 1) return [bind(paths[0] as string, 'ro')];
  const options = [
    ...(writable ? [`workdir=${workPath(root, chain.id)}`, `upperdir=${upper}`] : []),
    `lowerdir=${paths.join(':')}`,
    ...snapshot.overlayOptions,
  ];
  return [{ type: 'overlay', source: 'overlay', target: '', options }];
}

function bind(source: string, mode: 'ro' | 'rw'): Mount {
  return { type: 'bind', source, target: '', options: [mode, 'rbind'] };
}
