import { mkdir, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Digest } from '../core/digest.ts';
import { ShoalError, withContext } from '../errors.ts';
import { unmount as unmountPath } from '../kernel/mount-api.ts';
import type { Logger } from '../log.ts';
import { adoptErofs, type ErofsBacking, type MountedErofs, mountErofs } from '../mount/erofs.ts';
import { findLeftovers, unmountAll as unmountLeftovers } from '../mount/recover.ts';
import { diskReadAheadKb } from '../mount/superblock.ts';
import { isMounted } from '../mount/table.ts';
import type { BlobStore } from '../store/blob-store.ts';
import { createBootstraps } from './bootstraps.ts';
import type { AttachedDevices } from './devices.ts';
import { devicesOfRun } from './run-devices.ts';
import type { RunRecord, RunRecords } from './run-records.ts';
import type { StartHints } from './start-hints.ts';

/**
 * A *run* is a stack of neighbouring lazy layers, merged into one EROFS image (`boot/<name>.erofs`) and mounted once at
 * `mnt/<name>`, however many containers use it.
 */
export interface LazyRuns {
  /** The mount point, made if need be. Throws UNAVAILABLE when a layer of the run is gone or broken. */
  mount(run: Run, options: { signal: AbortSignal }): Promise<string>;
  /** Unmounts and forgets the run; containers that still use it keep reading until they end. Idempotent. */
  release(name: string): Promise<void>;
  /** Blobs that a mounted run, or one that containers still hold, reads from, and those that are pinned. */
  blobsInUse(): ReadonlySet<Digest>;
  /** Keeps blobs in use until they are mounted; call the answer when they are, or won't be. */
  pin(blobs: readonly Digest[]): () => void;
  /** True while the run is mounted and not released. */
  isMounted(name: string): boolean;
  /** Releases each run on record or mounted whose owner is gone: a daemon that was killed may have left it. */
  releaseUnowned(isOwned: (name: string) => boolean): Promise<void>;
  /** Takes over the mounts a former daemon left; says how many, and how many it could not. Call before faults are served. */
  adopt(): Promise<{ readonly adopted: number; readonly refused: number }>;
  /** Instead of `adopt` where a former daemon's mounts are dead: takes them out of the tree, to be made anew. */
  discardFormer(): Promise<void>;
  /** Mounts per blob. */
  mountsOf(blob: Digest): number;
  /** Unmounts everything for good, and reports the runs whose file system still lives because containers use it. */
  unmountAll(): Promise<{ readonly busy: readonly string[]; readonly held: readonly string[] }>;
  /** Runs whose file system still lives after `unmountAll`. */
  stillAlive(): readonly string[];
}

/** Bottom to top; `bottom` when no other layer lies below, so that whiteouts have done their work. */
export interface Run {
  /** `s<snapshot id>` or `m<mount id>`: a file name made of numbers only. */
  readonly name: string;
  readonly layers: readonly Digest[];
  readonly bottom: boolean;
}

interface LiveRun {
  readonly record: RunRecord;
  readonly mounted: MountedErofs;
}

/** How often runs that were unmounted while containers used them are looked at again. */
const LINGER_POLL_MS = 2_000;

export function createLazyRuns(
  components: {
    blobs: BlobStore;
    devices: AttachedDevices;
    records: RunRecords;
    hints?: Pick<StartHints, 'mounted'>;
    log: Logger;
  },
  init: { root: string; readAheadKb: number; backing: ErofsBacking },
): LazyRuns {
  const { blobs, devices, records, hints, log } = components;
  const live = new Map<string, LiveRun>();
  const mounting = new Map<string, Promise<string>>();
  /** Mounts that a direct one has taken over from; containers made before use them. */
  const superseded = new Map<string, LiveRun>();
  const lingering = new Set<LiveRun>();
  const pinned = new Set<readonly Digest[]>();
  let poll: NodeJS.Timeout | undefined;
  let closing = false;

  // a direct mount has a path of its own: the other one may be about to become some container's lower directory
  const targetOf = ({ name, direct }: { name: string; direct: boolean }): string =>
    join(init.root, 'mnt', direct ? `${name}d` : name);
  const bootstraps = createBootstraps({ blobs }, { directory: join(init.root, 'boot') });

  async function make(run: Run): Promise<string> {
    const startedMs = performance.now();
    const parts = await devicesOfRun(blobs, run.layers);
    const reuse = (await records.get(run.name)) !== undefined;
    const { path: image, tree } = await bootstraps.make({ ...run, parts }, { reuse });
    const mountedOn = isSame(parts.devices, run.layers) ? {} : { devices: parts.devices };
    const paths: string[] = [];
    const held: Digest[] = [];
    await records.put({ ...run, ...mountedOn, sysfsName: null, direct: false });
    let direct = true;
    try {
      for (const blob of parts.devices) {
        const { path, complete } = await devices.hold(blob);
        paths.push(path);
        held.push(blob);
        direct &&= complete;
      }
      const target = targetOf({ name: run.name, direct });
      await mkdir(target, { recursive: true, mode: 0o755 });
      const mounted = await mountErofs({
        image,
        devices: paths,
        target,
        // without a trap below it, reading is the disk's business
        readAheadKb: direct ? Math.max(init.readAheadKb, diskReadAheadKb(init.root) ?? 0) : init.readAheadKb,
        backing: init.backing,
        directIo: direct,
      });
      const record = { ...run, ...mountedOn, sysfsName: mounted.sysfsName ?? null, direct };
      live.set(run.name, { record, mounted });
      await records.put(record);
      if (tree !== undefined && !direct) hints?.mounted(run.layers, tree, parts.devices);
      const tookMs = Math.round(performance.now() - startedMs);
      log.info('mounted', { run: run.name, layers: run.layers.length, direct, tookMs });
      return target;
    } catch (error) {
      for (const blob of held) await devices.release(blob);
      await rmdir(targetOf({ name: run.name, direct })).catch(() => {});
      throw error;
    }
  }

  /** Mounts the run once more, directly; when that fails the mount there is goes on being used. */
  async function replace(known: LiveRun, run: Run): Promise<string> {
    try {
      const target = await make(run);
      superseded.set(run.name, known);
      return target;
    } catch (error) {
      log.warn('cannot mount directly', { run: run.name, error: withContext(error, {}).describe() });
      return known.mounted.target;
    }
  }

  /** Every layer has become complete since the mount: the next container is better off with a direct one. */
  function canBeDirect(record: RunRecord): boolean {
    return (
      !record.direct && !record.name.startsWith('m') && devicesOf(record).every((blob) => devices.isComplete(blob))
    );
  }

  async function unmount(run: LiveRun): Promise<{ busy: boolean; held: boolean }> {
    if (live.get(run.record.name) === run) live.delete(run.record.name);
    const detached = (await run.mounted.unmount()) === 'detached';
    await rmdir(run.mounted.target).catch(() => {});
    if (run.mounted.inUse()) {
      lingering.add(run);
      // below a mount by hand is a bind, which was detached: whoever reads there gets an error and lets go
      const byHand = isByHand(run);
      return { busy: detached || byHand, held: !detached && !byHand };
    }
    await letGo(run);
    return { busy: false, held: false };
  }

  /** The file system is gone: nothing must be adopted by its name any more. */
  async function letGo(run: LiveRun): Promise<void> {
    for (const blob of devicesOf(run.record)) await devices.release(blob);
    const { name } = run.record;
    if (live.has(name)) return;
    const record = await records.get(name);
    if (record?.released === true) await records.remove(name);
    else if (record !== undefined) await records.put({ ...record, sysfsName: null });
  }

  /** Takes one mount of a former daemon over. */
  async function adoptOne(record: RunRecord): Promise<'adopted' | 'gone' | 'refused'> {
    const target = targetOf(record);
    const mounted = adoptErofs(target, record.sysfsName ?? undefined);
    const visible = isMounted(target);
    if (!visible && (record.sysfsName === null || !mounted.inUse())) {
      if (record.released === true) await records.remove(record.name);
      return 'gone';
    }
    const held: Digest[] = [];
    try {
      for (const blob of devicesOf(record)) {
        await devices.hold(blob);
        held.push(blob);
      }
    } catch (error) {
      // its readers are denied, as those of any file the trap does not know; new mounts are made anew
      log.error('cannot serve a mount of a former daemon, its readers get errors', {
        run: record.name,
        error: withContext(error, {}).describe(),
      });
      for (const blob of held) await devices.release(blob);
      await mounted.unmount();
      return 'refused';
    }
    if (visible && record.released !== true) live.set(record.name, { record, mounted });
    else lingering.add({ record, mounted });
    return 'adopted';
  }

  async function release(name: string): Promise<void> {
    await mounting.get(name)?.catch(() => {});
    for (const run of [superseded.get(name), live.get(name)]) if (run !== undefined) await unmount(run);
    superseded.delete(name);
    const stillRead = [...lingering].find(({ record }) => record.name === name);
    if (stillRead === undefined) await records.remove(name);
    else await records.put({ ...stillRead.record, released: true });
    await bootstraps.remove(name);
    if (lingering.size > 0) watchLingering();
  }

  async function sweepLingering(): Promise<void> {
    for (const run of [...lingering]) {
      if (run.mounted.inUse()) continue;
      lingering.delete(run);
      await letGo(run);
    }
    if (lingering.size > 0) watchLingering();
  }

  function watchLingering(): void {
    clearTimeout(poll);
    poll = setTimeout(() => void sweepLingering(), LINGER_POLL_MS);
    poll.unref();
  }

  return {
    async mount(run, { signal }) {
      signal.throwIfAborted();
      if (closing) throw new ShoalError('UNAVAILABLE', 'the daemon is stopping');
      let shared = mounting.get(run.name);
      if (shared === undefined) {
        const known = live.get(run.name);
        if (known !== undefined && !canBeDirect(known.record)) return known.mounted.target;
        shared = (known === undefined ? make(run) : replace(known, run)).finally(() => mounting.delete(run.name));
        mounting.set(run.name, shared);
      }
      try {
        return await shared;
      } catch (error) {
        const known = withContext(error, {}, 'MOUNT_FAILED');
        throw new ShoalError('UNAVAILABLE', `cannot mount run ${run.name}: ${known.describe()}`, { cause: error });
      }
    },

    release,

    blobsInUse() {
      const read = [...live.values(), ...superseded.values(), ...lingering].flatMap(({ record }) => [
        ...record.layers,
        ...devicesOf(record),
      ]);
      return new Set([...read, ...[...pinned].flat()]);
    },

    pin(blobs) {
      const pin = [...blobs];
      pinned.add(pin);
      return () => void pinned.delete(pin);
    },

    isMounted: (name) => live.has(name),

    async releaseUnowned(isOwned) {
      const onRecord = (await records.list()).filter(({ released }) => released !== true);
      const names = new Set([...live.keys(), ...onRecord.map(({ name }) => name)]);
      for (const name of names) {
        if (isOwned(name)) continue;
        log.info('a mount that nobody owns is taken away', { run: name });
        await release(name);
      }
    },

    async adopt() {
      const count = { adopted: 0, gone: 0, refused: 0 };
      const known = await records.list();
      const targets = new Set(known.map(targetOf));
      for (const { target } of findLeftovers(init.root)) {
        if (targets.has(target)) continue;
        await unmountPath(target);
        count.refused += 1;
      }
      for (const record of known) count[await adoptOne(record)] += 1;
      if (lingering.size > 0) watchLingering();
      return count;
    },

    async discardFormer() {
      await unmountLeftovers(init.root);
      for (const record of await records.list()) await records.put({ ...record, sysfsName: null });
    },

    mountsOf(blob) {
      const uses = ({ record }: LiveRun): boolean => record.layers.includes(blob) || devicesOf(record).includes(blob);
      return [...live.values()].filter(uses).length;
    },

    async unmountAll() {
      closing = true;
      await Promise.allSettled(mounting.values());
      const busy: string[] = [];
      // those that an earlier end left to their containers are held still
      const held = [...lingering].filter((run) => !isByHand(run) && run.mounted.inUse()).map((run) => run.record.name);
      for (const run of [...superseded.values(), ...live.values()]) {
        const state = await unmount(run).catch((error): { busy: boolean; held: boolean } => {
          log.warn('cannot unmount', { run: run.record.name, error: withContext(error, {}).describe() });
          lingering.add(run);
          return { busy: false, held: true };
        });
        if (state.busy) busy.push(run.record.name);
        if (state.held) held.push(run.record.name);
      }
      clearTimeout(poll);
      return { busy, held };
    },

    stillAlive() {
      return [...lingering].filter((run) => run.mounted.inUse()).map((run) => run.record.name);
    },
  };
}

function devicesOf({ layers, devices = layers }: RunRecord): readonly Digest[] {
  return devices;
}

function isSame(a: readonly Digest[], b: readonly Digest[]): boolean {
  return a.length === b.length && a.every((blob, index) => blob === b[index]);
}

function isByHand({ record }: LiveRun): boolean {
  return record.name.startsWith('m');
}
