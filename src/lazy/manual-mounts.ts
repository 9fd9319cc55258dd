import { realpath } from 'node:fs/promises';
import type { Digest } from '../core/digest.ts';
import { oneAtATime } from '../core/turns.ts';
import { ShoalError, withContext } from '../errors.ts';
import type { ManifestLayer } from '../image/manifest.ts';
import { isNydusBlob } from '../image/readers/rafs/nydus-labels.ts';
import { formatReference, parseReference, type Reference } from '../image/reference.ts';
import { closeRaw } from '../kernel/libc.ts';
import { attachMount, cloneMount, MOUNT_ATTR, unmount as unmountPath } from '../kernel/mount-api.ts';
import type { Logger } from '../log.ts';
import { listMounts } from '../mount/table.ts';
import type { ImageRecords } from './images.ts';
import type { LayerOpener } from './layer-opener.ts';
import type { LazyRuns } from './runs.ts';
import type { TextDb } from './text-db.ts';

/** Images mounted by hand, without containerd: `shoal mount REF DIR`. */
export interface ManualMounts {
  /** Mounts the image read-only at `directory`, which must exist. Throws what opening a layer throws. */
  mount(request: { reference: string; directory: string }, options: { signal: AbortSignal }): Promise<ManualMount>;
  /** Ends the mount at `directory`; throws NOT_FOUND when shoal did not make one there. */
  unmount(directory: string): Promise<void>;
  list(): Promise<readonly ManualMount[]>;
  /** Makes anew what a former daemon mounted and is not there any more; needs no network. Failures are logged. */
  restore(): Promise<void>;
  /** Takes the binds away; the runs below stay with their owner. `forget`: the next daemon does not restore them. */
  unmountAll(options: { forget: boolean }): Promise<void>;
}

export interface ManualMount {
  readonly reference: string;
  readonly directory: string;
  readonly manifestDigest: Digest;
  /** Name of the run below, and its layers, bottom to top. */
  readonly run: string;
  readonly layers: readonly Digest[];
}

/** Everything one mount needs is on this node: more time than this means that something is stuck. */
const RESTORE_TIMEOUT_MS = 60_000;

/** Finds an image's layers for this machine's platform. */
export interface ImageResolver {
  resolve(
    reference: Reference,
    options: { signal: AbortSignal },
  ): Promise<{ readonly digest: Digest; readonly layers: readonly ManifestLayer[] }>;
}

export function createManualMounts(components: {
  resolver: ImageResolver;
  opener: LayerOpener;
  runs: LazyRuns;
  images: ImageRecords;
  db: TextDb;
  log: Logger;
}): ManualMounts {
  const { resolver, opener, runs, images, db, log } = components;
  const COUNTER = 'next';
  const keyOf = (directory: string): string => `at:${directory}`;

  const counting = oneAtATime();
  /** Directories that something is being mounted at. */
  const underWay = new Set<string>();

  function nextName(): Promise<string> {
    return counting(async () => {
      const next = Number((await db.get(COUNTER)) ?? '1');
      await db.put(COUNTER, String(next + 1));
      return `m${next}`;
    });
  }

  async function mountAt(directory: string, reference: Reference, signal: AbortSignal): Promise<ManualMount> {
    if ((await db.get(keyOf(directory))) !== undefined) throw taken(directory);
    const { path, ...mounted } = await mountImage(reference, signal);
    const record: ManualMount = { reference: formatReference(reference), directory, ...mounted };
    try {
      await db.put(keyOf(directory), JSON.stringify(record));
      bindMount(path, directory);
      return record;
    } catch (error) {
      await db.del(keyOf(directory));
      await runs.release(record.run);
      throw error;
    }
  }

  async function mountImage(reference: Reference, signal: AbortSignal) {
    const image = await resolver.resolve(reference, { signal });
    // the data blobs of a Nydus image are devices of its bootstrap
    const files = image.layers.filter((layer) => !isNydusBlob(layer));
    const layers = files.map(({ digest }) => digest);
    const unpin = runs.pin(layers);
    try {
      await Promise.all(files.map((layer) => opener.open(reference, layer, { signal, manifestDigest: image.digest })));
      for (const { digest } of image.layers)
        images.note(formatReference(reference), image.digest, { digest, lazy: true });
      const run = await nextName();
      const path = await runs.mount({ name: run, layers, bottom: true }, { signal });
      return { run, path, layers, manifestDigest: image.digest };
    } finally {
      unpin();
    }
  }

  async function list(): Promise<ManualMount[]> {
    const found: ManualMount[] = [];
    for await (const [key, text] of db.iterator()) {
      if (key !== COUNTER) found.push(JSON.parse(text) as ManualMount);
    }
    return found;
  }

  /** False when it was there all along. */
  async function restoreOne({ run, layers, directory }: ManualMount): Promise<boolean> {
    // mountinfo shows resolved paths
    const resolved = await realpath(directory);
    const there = listMounts({ under: resolved }).findLast(({ target }) => target === resolved);
    if (there !== undefined && there.fstype !== 'erofs') {
      throw new ShoalError('ALREADY_EXISTS', `something else is mounted at ${directory}`);
    }
    if (there !== undefined && runs.isMounted(run)) return false;
    if (there !== undefined) await unmountPath(directory);
    const signal = AbortSignal.timeout(RESTORE_TIMEOUT_MS);
    bindMount(await runs.mount({ name: run, layers, bottom: true }, { signal }), directory);
    return true;
  }

  return {
    list,
    async mount({ reference: text, directory }, { signal }) {
      const reference = parseReference(text);
      const image = formatReference(reference);
      if (underWay.has(directory)) throw taken(directory);
      underWay.add(directory);
      try {
        const record = await mountAt(directory, reference, signal);
        log.info('mounted by hand', { image, directory });
        return record;
      } catch (error) {
        throw withContext(error, { image }, 'MOUNT_FAILED');
      } finally {
        underWay.delete(directory);
      }
    },
    async unmount(directory) {
      const text = await db.get(keyOf(directory));
      if (text === undefined) throw new ShoalError('NOT_FOUND', `shoal has no image mounted at ${directory}`);
      const record = JSON.parse(text) as ManualMount;
      await unmountPath(directory);
      await runs.release(record.run);
      await db.del(keyOf(directory));
      log.info('unmounted', { image: record.reference, directory });
    },
    async restore() {
      for (const record of await list()) {
        const { reference, directory } = record;
        try {
          if (await restoreOne(record)) log.info('mounted again', { image: reference, directory });
        } catch (error) {
          const why = withContext(error, {}).describe();
          log.warn('an image mounted by hand cannot be mounted again', { image: reference, directory, why });
        }
      }
    },
    async unmountAll({ forget }) {
      for (const { directory } of await list()) {
        try {
          await unmountPath(directory);
        } catch (error) {
          log.warn('cannot unmount', { directory, error: withContext(error, {}).describe() });
          continue;
        }
        if (forget) await db.del(keyOf(directory));
      }
    },
  };
}

function taken(directory: string): ShoalError {
  return new ShoalError('ALREADY_EXISTS', `${directory} holds an image already; shoal umount it first`);
}

/** Shows `source` at `target` as well, read-only. */
function bindMount(source: string, target: string): void {
  const fd = cloneMount(source, MOUNT_ATTR.RDONLY);
  try {
    attachMount(fd, target);
  } finally {
    closeRaw(fd);
  }
}
