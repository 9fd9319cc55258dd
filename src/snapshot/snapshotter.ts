import { access } from 'node:fs/promises';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { diskUsage } from './disk-usage.ts';
import { parseFilters } from './filter.ts';
import type { LazyLayers } from './lazy-layers.ts';
import type { MetaStore, ParentLink, SnapshotChain, SnapshotRecord } from './metastore.ts';
import { cutRuns, type Lower, type Mount, mountsOf, type Run, upperPath } from './mounts.ts';
import { createRemotePrepare, type RemotePrepare, TARGET_LABEL } from './remote-prepare.ts';
import { mappedOwner, SnapshotDirs } from './snapshot-dirs.ts';
import { checkedLabels, checkedName, type Labels, type SnapshotInfo, type Usage } from './snapshot-info.ts';

/** What a Prepare or View asks for. */
export interface SnapshotRequest {
  readonly key: string;
  /** Empty for none. */
  readonly parent: string;
  readonly labels: Labels;
}

/** Every call may be given up by its caller. */
export interface CallOptions {
  readonly signal: AbortSignal;
}

/** containerd's snapshotter contract (core/snapshots/snapshotter.go); errors carry containerd's codes. */
export interface Snapshotter {
  /**
   * A writable snapshot. With the label `containerd.io/snapshot.ref` and a layer that can be served lazily, the layer is
   * committed under that name instead, and the answer is ALREADY_EXISTS. UNAVAILABLE when a lazy layer below is broken.
   */
  prepare(request: SnapshotRequest, options: CallOptions): Promise<Mount[]>;
  view(request: SnapshotRequest, options: CallOptions): Promise<Mount[]>;
  mounts(key: string, options: CallOptions): Promise<Mount[]>;
  commit(request: { name: string; key: string; parent: string; labels: Labels }, options: CallOptions): Promise<void>;
  remove(key: string): Promise<void>;
  stat(key: string): SnapshotInfo;
  update(change: { name: string; labels: Labels }, paths: readonly string[]): Promise<SnapshotInfo>;
  /** The snapshots that pass any filter, as they were when the call came. */
  list(filters: readonly string[]): Iterable<SnapshotInfo>;
  usage(key: string, options: CallOptions): Promise<Usage>;
  /** Deletes what removed or abandoned snapshots left behind. */
  cleanup(options: CallOptions): Promise<void>;
  /** Gives up the calls under way. Idempotent. */
  close(): Promise<void>;
}

/** What a snapshotter is made of; it closes none of them. */
export interface SnapshotterComponents {
  readonly store: MetaStore;
  readonly lazyLayers: LazyLayers;
  readonly log: Logger;
}

/** Opens the directories below `root` (absolute) and gives a snapshotter on them. Throws CONFIG_INVALID. */
export async function createSnapshotter(
  components: SnapshotterComponents,
  init: { readonly root: string },
): Promise<Snapshotter> {
  const dirs = new SnapshotDirs({ log: components.log }, init);
  await dirs.open();
  const overlayOptions = (await exists('/sys/module/overlay/parameters/index')) ? ['index=off'] : [];
  return new OverlaySnapshotter({ ...components, dirs }, { ...init, overlayOptions });
}

class OverlaySnapshotter implements Snapshotter {
  readonly #store: MetaStore;
  readonly #lazyLayers: LazyLayers;
  readonly #dirs: SnapshotDirs;
  readonly #log: Logger;
  readonly #remote: RemotePrepare;
  readonly #root: string;
  readonly #overlayOptions: readonly string[];

  constructor(
    components: SnapshotterComponents & { dirs: SnapshotDirs },
    init: { root: string; overlayOptions: readonly string[] },
  ) {
    this.#store = components.store;
    this.#lazyLayers = components.lazyLayers;
    this.#dirs = components.dirs;
    this.#log = components.log;
    this.#remote = createRemotePrepare(components);
    this.#root = init.root;
    this.#overlayOptions = init.overlayOptions;
  }

  async prepare(request: SnapshotRequest, options: CallOptions): Promise<Mount[]> {
    const target = request.labels.get(TARGET_LABEL) ?? '';
    if (target !== '') {
      checkedLabels(request.labels);
      if (await this.#remote.prepare({ ...request, target }, options)) {
        throw new ShoalError('ALREADY_EXISTS', `target snapshot ${JSON.stringify(target)} already exists`);
      }
    }
    return this.#create('active', request, options);
  }

  view(request: SnapshotRequest, options: CallOptions): Promise<Mount[]> {
    return this.#create('view', request, options);
  }

  async mounts(key: string, { signal }: CallOptions): Promise<Mount[]> {
    const chain = this.#store.getSnapshot(key);
    return this.#mountsOf(chain, await this.#lowers(cutRuns(chain.parents), signal));
  }

  async commit(
    { name, key, parent, labels }: { name: string; key: string; parent: string; labels: Labels },
    options: CallOptions,
  ): Promise<void> {
    checkedName(name, 'snapshot name');
    const { id, info } = this.#store.getInfo(key);
    const usage =
      info.kind === 'active' ? await diskUsage(upperPath(this.#root, id), options) : { sizeBytes: 0, inodes: 0 };
    await this.#store.update((transaction) => {
      options.signal.throwIfAborted();
      return transaction.commitActive(key, name, usage, { labels, parent });
    });
  }

  async remove(key: string): Promise<void> {
    const record = await this.#store.update((transaction) => transaction.remove(key));
    if (record.lazy === undefined) await this.#dirs.remove(record.id);
    else await this.#release(record.id);
  }

  stat(key: string): SnapshotInfo {
    return this.#store.getInfo(key).info;
  }

  update(change: { name: string; labels: Labels }, paths: readonly string[]): Promise<SnapshotInfo> {
    return this.#store.update((transaction) => transaction.updateInfo(change, paths));
  }

  list(filters: readonly string[]): Iterable<SnapshotInfo> {
    return infosOf(this.#store.records(), parseFilters(filters));
  }

  async usage(key: string, options: CallOptions): Promise<Usage> {
    const { id, info, usage, lazy } = this.#store.getInfo(key);
    if (lazy !== undefined) return this.#lazyLayers.usage(lazy);
    if (info.kind === 'active') return diskUsage(upperPath(this.#root, id), options);
    return usage;
  }

  async cleanup(options: CallOptions): Promise<void> {
    // Inside an update nobody gives a directory its number, so one without a record is nobody's.
    const orphans = await this.#store.update((transaction) => this.#dirs.orphans(transaction.idMap()));
    await this.#dirs.removeOrphans(orphans, options);
    await this.#remote.collect();
  }

  close(): Promise<void> {
    return this.#remote.close();
  }

  async #create(kind: 'active' | 'view', request: SnapshotRequest, { signal }: CallOptions): Promise<Mount[]> {
    const { key, parent } = request;
    const labels = checkedLabels(request.labels);
    const parents = parent === '' ? [] : this.#store.parentChain(parent);
    this.#refuseTaken(checkedName(key, 'snapshot key'));
    const runs = cutRuns(parents);
    const lowers = await this.#lowers(runs, signal);
    const staged = await this.#dirs.stage({
      writable: kind === 'active',
      owner: mappedOwner(labels) ?? (lowers[0] && (await this.#dirs.ownerOf(lowers[0]))),
    });
    try {
      const chain = await this.#store.update(async (transaction) => {
        signal.throwIfAborted();
        const made = transaction.createSnapshot(kind, key, parent, labels);
        if (!sameChain(made.parents, parents)) {
          throw new ShoalError('NOT_FOUND', `parent snapshot ${JSON.stringify(parent)} was replaced meanwhile`);
        }
        await this.#dirs.adopt(staged, made.id);
        return made;
      });
      return this.#mountsOf(chain, lowers);
    } catch (error) {
      await this.#dirs.discard(staged);
      await this.#releaseForgotten(runs);
      throw error;
    }
  }

  #mountsOf(chain: SnapshotChain, lowers: readonly Lower[]): Mount[] {
    return mountsOf({ root: this.#root, chain, lowers, overlayOptions: this.#overlayOptions });
  }

  #lowers(runs: readonly Run[], signal: AbortSignal): Promise<Lower[]> {
    return Promise.all(
      runs.map(async (run): Promise<Lower> => {
        if (run.kind === 'plain') return run;
        const { id, layers, bottom } = run;
        return { kind: 'run', path: await this.#lazyLayers.mountRun({ id, layers, bottom }, { signal }) };
      }),
    );
  }

  /** A run whose snapshot was removed while it was being mounted has nobody else to release it. */
  async #releaseForgotten(runs: readonly Run[]): Promise<void> {
    const ids = this.#store.idMap();
    for (const run of runs) if (run.kind === 'lazy' && !ids.has(run.id)) await this.#release(run.id);
  }

  async #release(id: number): Promise<void> {
    try {
      await this.#lazyLayers.releaseRun(id);
    } catch (error) {
      this.#log.warn('lazy layers of a removed snapshot could not be released', {
        snapshot: id,
        error: (error as Error).message,
      });
    }
  }

  #refuseTaken(key: string): void {
    try {
      this.#store.getInfo(key);
    } catch (error) {
      if (hasCode(error, 'NOT_FOUND')) return;
      throw error;
    }
    throw new ShoalError('ALREADY_EXISTS', `snapshot ${JSON.stringify(key)} already exists`);
  }
}

function* infosOf(records: readonly SnapshotRecord[], filter: (info: SnapshotInfo) => boolean): Iterable<SnapshotInfo> {
  for (const { info } of records) if (filter(info)) yield info;
}

function sameChain(one: readonly ParentLink[], other: readonly ParentLink[]): boolean {
  return one.length === other.length && one.every((link, at) => link.id === other[at]?.id);
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
