/** The composition root of `shoal serve`: reads top to bottom like the picture in docs/design.md. */
import { chmod, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import { systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { startControlServer } from './control/server.ts';
import { serveImageProxy } from './cri/image-proxy.ts';
import { ShoalError, withContext } from './errors.ts';
import { hostPlatform } from './image/platform.ts';
import { createLayerReaders } from './image/readers/index.ts';
import { openUnnoticed } from './kernel/fanotify.ts';
import { createBlobOpener } from './lazy/blob-opener.ts';
import { createAttachedDevices } from './lazy/devices.ts';
import { createFaultTrace } from './lazy/fault-trace.ts';
import { createGivenCredentials } from './lazy/given-credentials.ts';
import { type ImageRecords, openImageRecords } from './lazy/images.ts';
import { createLayerOpener } from './lazy/layer-opener.ts';
import { createLazyLayers } from './lazy/lazy-layers.ts';
import { createManifestLookup } from './lazy/manifests.ts';
import { createManualMounts, type ManualMount } from './lazy/manual-mounts.ts';
import { registerMetrics } from './lazy/metrics.ts';
import { mountRoutes } from './lazy/mount-routes.ts';
import { createOriginBlobs } from './lazy/origin-blobs.ts';
import { createPrefetcher } from './lazy/prefetch.ts';
import { createConfiguredRegistry } from './lazy/registry.ts';
import { createRunRecords } from './lazy/run-records.ts';
import { createLazyRuns, type LazyRuns } from './lazy/runs.ts';
import { createStartHints } from './lazy/start-hints.ts';
import { createStatusSource } from './lazy/status-source.ts';
import type { Logger } from './log.ts';
import { createMetricsRegistry } from './metrics.ts';
import { findLeftovers } from './mount/recover.ts';
import { serveSnapshots } from './snapshot/grpc.ts';
import type { MetaStore } from './snapshot/metastore.ts';
import { openLevelMetaStore } from './snapshot/metastores.ts';
import { createSnapshotter } from './snapshot/snapshotter.ts';
import { fetchImage } from './source/origin/fetch-image.ts';
import { createOriginStore } from './source/origin/origin-store.ts';
import type { BlobDevice } from './store/blob-device.ts';
import { openBlobStore } from './store/blob-store.ts';
import { count, sourceCounters } from './store/count.ts';
import { dedup } from './store/dedup.ts';
import { createLocalStore } from './store/local-store.ts';
import { route } from './store/route.ts';
import { chooseTrap } from './trap/choose.ts';
import { createFaultLoop, type FaultLoop } from './trap/fault-loop.ts';
import { dropCaches } from './trap/page-cache.ts';
import type { KernelTrap } from './trap/trap.ts';

/** A running daemon. */
export interface RunningDaemon {
  /** Unmounts, answers what waits, closes everything. Idempotent. */
  stop(): Promise<void>;
  /** Resolves when the daemon should end by itself: with an error when its trap failed, else because nothing is left. */
  readonly ended: Promise<ShoalError | undefined>;
}

/** Read-ahead of lazy mounts: one event then brings up to this much, see docs/design.md. */
const READ_AHEAD_KB = 1024;
/** Grace for readers that were answered with an error to let go of their file system at shutdown. */
const LET_GO_MS = 8_000;

/**
 * Starts everything `shoal serve` does and resolves when its sockets answer. Needs no network. Throws CONFIG_INVALID,
 * FAILED_PRECONDITION (another daemon has this root), TRAP_UNAVAILABLE, STORE_IO.
 */
export async function runDaemon(
  config: Config,
  components: { log: Logger },
  init: { untilUnmounted?: boolean } = {},
): Promise<RunningDaemon> {
  const parts = { log: components.log, clock: systemClock };
  const { log } = parts;
  const { root } = config;
  const stack = new AsyncDisposableStack();
  try {
    // State: one database and the blob store, both below the root.
    await makeRoot(root);
    const db = await openDatabase(join(root, 'meta'));
    stack.defer(() => db.close());
    const blobs = await openBlobStore(parts, {
      root,
      db: db.sublevel<Uint8Array, Uint8Array>('chunks', { keyEncoding: 'view', valueEncoding: 'view' }),
      flushAfterMs: config.store.flushIntervalMs,
      // files that a former daemon marked must be read before anyone answers for them
      openData: openUnnoticed,
    });
    stack.defer(() => blobs.close());
    const images = await openImageRecords(db.sublevel('images'));
    stack.defer(() => images.flush());

    // The cascade: what this node has, then the origin.
    const given = createGivenCredentials((repository) => registry.renewed(repository));
    const registry = createConfiguredRegistry(config, { ...parts, given: given.sources });
    stack.defer(() => registry.close());
    const origin = sourceCounters('origin');
    const local = sourceCounters('local');
    let fetchedBytes = 0;
    const originStore = createOriginStore(
      { blobs: createOriginBlobs({ blobs, registry }), onFetched: (_blob, bytes) => (fetchedBytes += bytes) },
      { demandRequestBytes: config.fetch.requestBytesMax },
    );
    blobs.connect(
      dedup(
        route(
          count({ clock: parts.clock, inner: createLocalStore({ blobs }) }, local),
          count({ clock: parts.clock, inner: originStore }, origin),
        ),
      ),
    );

    // The kernel side: trap, devices, mounts; first of all what a former daemon left.
    const ended = Promise.withResolvers<ShoalError | undefined>();
    const { trap, reason } = await chooseTrap(parts, {
      prefer: config.trap.kind,
      runDir: join(root, 'run'),
      blobsDir: join(root, 'blobs'),
      onFatal: ended.resolve,
    });
    const prefetcher = createPrefetcher({ log }, { hints: config.fetch.prefetch, background: config.fetch.background });
    stack.defer(() => prefetcher.stop());
    const devices = createAttachedDevices({ blobs, trap, prefetcher, log });
    const hints = config.fetch.prefetch ? createStartHints({ registry, blobs, log }) : undefined;
    stack.defer(() => hints?.stop());
    const runs = createLazyRuns(
      {
        blobs,
        devices,
        records: createRunRecords(db.sublevel('runs')),
        log,
        ...(hints === undefined ? {} : { hints }),
      },
      { root, readAheadKb: READ_AHEAD_KB, backing: trap.kind === 'fuse' ? 'file-or-loop' : 'file' },
    );
    let serving = false;
    stack.defer(() => (serving ? undefined : leaveAsFound({ trap, runs })));
    await takeOver(root, { trap, runs, log });
    await trap.start();
    const trace = createFaultTrace({ clock: parts.clock, imagesOf: (blob) => images.namesOf(blob) });
    const faults = createFaultLoop(
      {
        ...parts,
        trap,
        device: (id) => trace.watch(devices.byId(id)),
        imagesOf: (id) => imagesOf(images, devices.byId(id)),
      },
      { deadlineMs: config.trap.faultDeadlineMs },
    );
    stack.defer(() => (serving ? stopServing({ trap, runs, faults, log }) : undefined));

    // Layers and images.
    const { tocBytesMax, layerEntriesMax } = config.limits;
    const readers = createLayerReaders({ estargz: { maxTocBytes: tocBytesMax, maxEntries: layerEntriesMax } });
    const opener = createLayerOpener({ registry: createBlobOpener(registry), blobs, readers, log });
    const manifests = createManifestLookup({
      fetch: async (reference, digest, options) => (await registry.manifest(reference, digest, options)).bytes,
    });
    const lazyLayers = createLazyLayers({
      ...{ opener, manifests, runs, blobs, images, given: given.labels, log },
      ...(hints === undefined ? {} : { hints }),
    });
    const platform = hostPlatform(process.arch);
    const mounts = createManualMounts({
      resolver: {
        async resolve(reference, { signal }) {
          const image = await fetchImage(registry, reference, { platform, signal });
          return { digest: image.manifest.digest, layers: image.manifest.layers };
        },
      },
      opener,
      runs,
      images,
      db: db.sublevel('mounts'),
      log,
    });
    stack.defer(() => (serving ? mounts.unmountAll({ forget: init.untilUnmounted === true }) : undefined));
    const store = await openLevelMetaStore({ db });
    stack.defer(() => store.close());
    await runs.releaseUnowned(ownersOf(store, await mounts.list()));
    await mounts.restore();

    // The sockets, last: who connects finds everything ready.
    const snapshotter = await createSnapshotter({ store, lazyLayers, log }, { root });
    stack.defer(() => snapshotter.close());
    const snapshots = await serveSnapshots({ snapshotter, log }, { socket: config.snapshotter.socket });
    stack.defer(() => snapshots.close());
    if (config.cri.socket !== undefined) {
      const { socket, containerdSocket } = config.cri;
      const cri = await serveImageProxy({ pulls: given.pulls, log }, { socket, containerdSocket });
      stack.defer(() => cri.close());
    }
    const source = createStatusSource(
      { blobs, runs, images, mounts, trap, sources: [local, origin], fetchedBytes: () => fetchedBytes },
      { root, reason },
    );
    const metrics = createMetricsRegistry();
    registerMetrics(metrics, { blobs, trap, faults, sources: [local, origin], fetchedBytes: () => fetchedBytes });
    const control = await startControlServer(
      {
        source,
        metrics,
        config,
        log,
        routes: [
          ...trace.routes,
          ...mountRoutes(mounts, { onLast: () => init.untilUnmounted === true && ended.resolve(undefined) }),
        ],
      },
      { socket: config.control.socket },
    );
    stack.defer(() => control.stop());
    serving = true;
    log.info('ready', { root, trap: trap.kind, socket: config.snapshotter.socket });
    return daemonOf(stack, ended.promise);
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

function daemonOf(stack: AsyncDisposableStack, ended: Promise<ShoalError | undefined>): RunningDaemon {
  let stopping: Promise<void> | undefined;
  return {
    ended,
    stop() {
      stopping ??= stack.disposeAsync();
      return stopping;
    },
  };
}

/** Makes the root, or takes an empty folder as it; one that holds something must be private already (checked later). */
async function makeRoot(root: string): Promise<void> {
  await mkdir(root, { recursive: true, mode: 0o700 });
  if ((await readdir(root)).length === 0) await chmod(root, 0o700);
}

function imagesOf(images: ImageRecords, device: BlobDevice | undefined): readonly string[] {
  return device === undefined ? [] : images.namesOf(device.blob);
}

async function openDatabase(path: string): Promise<Level<string, string>> {
  const db = new Level<string, string>(path);
  try {
    await db.open();
    return db;
  } catch (error) {
    const locked = (error as { cause?: { code?: string } }).cause?.code === 'LEVEL_LOCKED';
    if (locked) throw new ShoalError('FAILED_PRECONDITION', `another shoal daemon uses ${path}`, { cause: error });
    throw withContext(error, {}, 'STATE_CORRUPT');
  }
}

/** Adopts mounts whose readers the trap still holds back; takes away those that nobody can serve any more. */
async function takeOver(root: string, parts: { trap: KernelTrap; runs: LazyRuns; log: Logger }): Promise<void> {
  const { trap, runs, log } = parts;
  if (trap.kind === 'fuse') {
    await runs.discardFormer();
    return;
  }
  const adopted = await runs.adopt();
  if (adopted > 0) log.info('took over the mounts of a former daemon', { runs: adopted, waiting: trap.recovered });
  if (!trap.lost || (adopted === 0 && findLeftovers(root).length === 0)) return;
  // Between the loss of the trap and this moment readers may have been given holes that now sit in the page cache.
  log.error(
    'the keeper of a former daemon is gone: reads meanwhile may have seen zeros; restart containers of lazy images',
  );
  await dropCaches();
}

/** Tells whether a snapshot or a mount by hand stands behind a run. */
function ownersOf(store: MetaStore, byHand: readonly ManualMount[]): (run: string) => boolean {
  const names = new Set([...store.idMap().keys()].map((id) => `s${id}`));
  for (const { run } of byHand) names.add(run);
  return (run) => names.has(run);
}

/** When the start fails: readers that a former daemon left waiting go on waiting, for one that starts. */
async function leaveAsFound({ trap, runs }: { trap: KernelTrap; runs: LazyRuns }): Promise<void> {
  if (runs.blobsInUse().size > 0) await trap.abandon();
  else await trap.close();
}

/**
 * The orderly end (design §6): unmount first. Readers of a mount get an error; a file system that containers still use
 * keeps its trap, so that their cold reads wait for the next daemon instead of seeing holes.
 */
async function stopServing(parts: { trap: KernelTrap; runs: LazyRuns; faults: FaultLoop; log: Logger }): Promise<void> {
  const { trap, runs, faults, log } = parts;
  const { held } = await runs.unmountAll();
  if (held.length === 0) faults.stop();
  const deadline = performance.now() + LET_GO_MS;
  while (runs.stillAlive().length > held.length && performance.now() < deadline) await systemClock.sleep(20);
  const alive = runs.stillAlive();
  if (alive.length === 0) {
    faults.stop();
    await trap.close();
    await faults.done;
    return;
  }
  log.warn('containers still use lazy images: their cold reads wait until shoal is started again', {
    runs: alive.join(','),
  });
  await trap.abandon();
}
