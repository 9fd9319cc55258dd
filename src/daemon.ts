/** The composition root of `shoal serve`: reads top to bottom like the picture in docs/design.md. */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { openCascade } from './cascade.ts';
import { systemClock } from './clock.ts';
import type { Config } from './config.ts';
import { startControlServer } from './control/server.ts';
import { trimBytes } from './core/byte-pool.ts';
import type { Digest } from './core/digest.ts';
import { backgroundPolicy } from './core/policy/background.ts';
import type { ShoalError } from './errors.ts';
import { hostPlatform } from './image/platform.ts';
import { createLayerReaders } from './image/readers/index.ts';
import { openUnnoticed } from './kernel/fanotify.ts';
import { returnFreeMemory } from './kernel/heap.ts';
import { backgroundRules } from './lazy/background-rules.ts';
import { createBlobOpener, OPEN_RETRY_MS } from './lazy/blob-opener.ts';
import { createConfiguredPlainLayers, createConfiguredSociLayers } from './lazy/configured-layers.ts';
import { cpuTime } from './lazy/cpu-time.ts';
import { createAttachedDevices } from './lazy/devices.ts';
import { createExplainer, explainRoute } from './lazy/explainer.ts';
import { createFaultTrace } from './lazy/fault-trace.ts';
import { serveConfiguredImages } from './lazy/given-credentials.ts';
import { leaveAsFound, stopServing, takeOver } from './lazy/handover.ts';
import { type ImageRecords, openImageRecords } from './lazy/images.ts';
import { createLayerOpener } from './lazy/layer-opener.ts';
import { createLazyLayers } from './lazy/lazy-layers.ts';
import { createLocalIndexes } from './lazy/local-indexes.ts';
import { createManifestLookup } from './lazy/manifests.ts';
import { createManualMounts, type ManualMount } from './lazy/manual-mounts.ts';
import { registerMetrics } from './lazy/metrics.ts';
import { mountRoutes } from './lazy/mount-routes.ts';
import type { Neighbourhood } from './lazy/neighbourhood.ts';
import { createPrefetcher } from './lazy/prefetch.ts';
import { makeRoot, openDatabase } from './lazy/root.ts';
import { createRunRecords } from './lazy/run-records.ts';
import { createLazyRuns } from './lazy/runs.ts';
import { createStartHints } from './lazy/start-hints.ts';
import { createStatusSource } from './lazy/status-source.ts';
import { swarmRoutes } from './lazy/swarm-routes.ts';
import { registerSwarmTraffic, trafficOf } from './lazy/swarm-traffic.ts';
import type { Logger } from './log.ts';
import { createMetricsRegistry } from './metrics.ts';
import { serveSnapshots } from './snapshot/grpc.ts';
import type { MetaStore } from './snapshot/metastore.ts';
import { openLevelMetaStore } from './snapshot/metastores.ts';
import { createSnapshotter } from './snapshot/snapshotter.ts';
import { fetchImage } from './source/origin/fetch-image.ts';
import type { PeerDirectory } from './source/peer/directory.ts';
import type { BlobDevice } from './store/blob-device.ts';
import { openBlobStore } from './store/blob-store.ts';
import { chooseTrap } from './trap/choose.ts';
import { createFaultLoop, type FaultLoop } from './trap/fault-loop.ts';

/** A running daemon. */
export interface RunningDaemon {
  /** Unmounts, answers what waits, closes everything. Idempotent. */
  stop(): Promise<void>;
  /** Resolves when the daemon should end by itself: with an error when its trap failed, else because nothing is left. */
  readonly ended: Promise<ShoalError | undefined>;
}

/** Read-ahead of lazy mounts: one event then brings up to this much, see docs/design.md. */
const READ_AHEAD_KB = 1024;
/** How long a burst's buffers stay for the next one, ms. */
const TRIM_EVERY_MS = 2_000;

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
    const trimming = setInterval(() => trimBytes() > 0 && void returnFreeMemory(), TRIM_EVERY_MS).unref();
    stack.defer(() => clearInterval(trimming));
    // State: one database and the blob store, both below the root.
    await makeRoot(root);
    const db = await openDatabase(join(root, 'meta'));
    stack.defer(() => db.close());
    let joined: Neighbourhood<PeerDirectory> | undefined;
    const tell = {
      onHeld: (blob: Digest, digests: readonly Digest[]) => joined?.held(blob, digests),
      onGone: (_: Digest, digests: readonly Digest[]) => joined?.gone(digests),
    };
    const blobs = await openBlobStore(
      { ...parts, ...tell },
      {
        root,
        db: db.sublevel<Uint8Array, Uint8Array>('chunks', { keyEncoding: 'view', valueEncoding: 'view' }),
        flushAfterMs: config.store.flushIntervalMs,
        // files that a former daemon marked must be read before anyone answers for them
        openData: openUnnoticed,
      },
    );
    stack.defer(() => blobs.close());
    const images = await openImageRecords(db.sublevel('images'));
    stack.defer(() => images.flush());

    const kept = { directory: join(root, 'indexes'), maxBytes: config.layers.indexBytesMax };
    const indexes = createLocalIndexes({ log }, kept);
    const cascade = await openCascade(config, { ...parts, blobs, images, indexes }, stack);
    const { registry, direct, given, asked, mirrors, swarm, ledger, sources, fetchedBytes } = cascade;
    joined = swarm;
    blobs.connect(cascade.source);

    // The kernel side: trap, devices, mounts; first of all what a former daemon left.
    const ended = Promise.withResolvers<ShoalError | undefined>();
    const { trap, reason } = await chooseTrap(parts, {
      prefer: config.trap.kind,
      runDir: join(root, 'run'),
      blobsDir: join(root, 'blobs'),
      onFatal: ended.resolve,
    });
    let faultLoop: FaultLoop | undefined;
    const prefetcher = createPrefetcher(
      {
        ...parts,
        demandWaiting: () => (faultLoop?.stats().inFlight ?? 0) > 0,
        policyOf: ({ blob }) => backgroundPolicy(images.namesOf(blob), backgroundRules(config)),
        isOpen: (device) => blobs.opened(device.blob) === device,
      },
      {
        hints: config.fetch.prefetch,
        node: swarm?.directory.self.id ?? `${hostname()} ${root}`,
        isShared: swarm !== undefined,
      },
    );
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
    stack.defer(() => (serving ? undefined : leaveAsFound({ trap, runs, faults: faultLoop })));
    await takeOver(root, { trap, runs, log });
    const trace = createFaultTrace({ clock: parts.clock, imagesOf: (blob) => images.namesOf(blob), cpu: cpuTime });
    faultLoop = createFaultLoop(
      {
        ...parts,
        trap,
        device: (id) => trace.watch(devices.byId(id)),
        imagesOf: (id) => imagesOf(images, devices.byId(id)),
      },
      { deadlineMs: config.trap.faultDeadlineMs },
    );
    const faults = faultLoop;
    stack.defer(() => (serving ? stopServing({ trap, runs, faults, log }) : undefined));

    // Layers and images.
    const { tocBytesMax, layerEntriesMax } = config.limits;
    const readers = createLayerReaders({ estargz: { maxTocBytes: tocBytesMax, maxEntries: layerEntriesMax } });
    const manifests = createManifestLookup({
      async fetch(reference, digest, { signal }) {
        return (await registry.manifest(reference, digest, { signal, retryBudgetMs: OPEN_RETRY_MS })).bytes;
      },
    });
    const access = { blobs, registry, manifests, log };
    const documents = swarm?.plane.documents;
    const soci = createConfiguredSociLayers(config, { ...access, documents });
    const plain = createConfiguredPlainLayers(
      config,
      {
        ...{ ...access, indexes, plane: swarm?.plane, onFetched: cascade.onFetched },
        onIndexed: (layer) => swarm?.indexed(layer),
      },
      stack,
    );
    const opener = createLayerOpener({
      registry: createBlobOpener(registry),
      direct: mirrors.past(createBlobOpener(direct)),
      blobs,
      readers,
      documents,
      log,
      ...(soci === undefined ? {} : { soci }),
      ...(plain === undefined ? {} : { plain }),
    });
    const lazyLayers = createLazyLayers({
      ...{ opener, manifests, runs, blobs, images, given: given.labels, asked, log },
      ...(hints === undefined ? {} : { hints }),
    });
    const platform = hostPlatform(process.arch);
    const mounts = createManualMounts({
      resolver: {
        async resolve(reference, { signal }) {
          asked.admit(reference.registry);
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

    const traffic = swarm === undefined ? undefined : () => trafficOf(swarm.plane.stats());
    const accounts = { sources, ledger, prefetcher, fetchedBytes };

    // The sockets, last: who connects finds everything ready.
    const snapshotter = await createSnapshotter({ store, lazyLayers, log }, { root });
    stack.defer(() => snapshotter.close());
    const snapshots = await serveSnapshots({ snapshotter, log }, { socket: config.snapshotter.socket });
    stack.defer(() => snapshots.close());
    stack.use(await serveConfiguredImages(config, { pulls: given.pulls, log }));
    const source = createStatusSource({ ...accounts, blobs, runs, images, mounts, trap, traffic }, { root, reason });
    const metrics = createMetricsRegistry();
    registerMetrics(metrics, { ...accounts, blobs, trap, faults, images });
    if (traffic !== undefined) registerSwarmTraffic(metrics, traffic);
    const control = await startControlServer(
      {
        source,
        metrics,
        config,
        log,
        routes: [
          ...trace.routes,
          ...mountRoutes(mounts, { onLast: () => init.untilUnmounted === true && ended.resolve(undefined) }),
          mirrors.route(images),
          ...swarmRoutes(swarm?.directory),
          explainRoute(createExplainer({ blobs, images, ledger, directory: swarm?.directory })),
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

function imagesOf(images: ImageRecords, device: BlobDevice | undefined): readonly string[] {
  return device === undefined ? [] : images.namesOf(device.blob);
}

/** Tells whether a snapshot or a mount by hand stands behind a run. */
function ownersOf(store: MetaStore, byHand: readonly ManualMount[]): (run: string) => boolean {
  const names = new Set([...store.idMap().keys()].map((id) => `s${id}`));
  for (const { run } of byHand) names.add(run);
  return (run) => names.has(run);
}
