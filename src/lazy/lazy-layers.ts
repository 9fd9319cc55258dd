import type { Digest } from '../core/digest.ts';
import { hasCode, ShoalError, withContext } from '../errors.ts';
import type { LayerDescriptor } from '../image/layer-reader.ts';
import { isNydusBlob, isNydusBootstrap, NYDUS } from '../image/readers/rafs/nydus-labels.ts';
import { formatReference } from '../image/reference.ts';
import type { Logger } from '../log.ts';
import type { LayerOffer, LazyLayers } from '../snapshot/lazy-layers.ts';
import type { AskedRegistries } from '../source/asked-registries.ts';
import type { RememberedCredentials } from '../source/origin/remembered-credentials.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { ImageRecords } from './images.ts';
import { type LayerRequest, layerRequestFrom } from './labels.ts';
import type { LayerOpener } from './layer-opener.ts';
import type { ManifestLookup } from './manifests.ts';
import { createPatience } from './patience.ts';
import { withDevices } from './run-devices.ts';
import type { LazyRuns } from './runs.ts';
import type { StartHints } from './start-hints.ts';

/** How long a Prepare may wait for a layer's index before containerd is told to unpack the layer itself. */
const OFFER_DEADLINE_MS = 20_000;
/** How long it may wait in all while bytes of a layer that is read whole keep coming. */
const OFFER_PROGRESS_MS = 1_800_000;
/** How long a registry that did not answer is left alone: an image has many layers, and each would wait as long. */
const DEAD_REGISTRY_MS = 30_000;

/** Lazy layers as the snapshotter wants them: opens what containerd's labels name, mounts what it stacks up. */
export function createLazyLayers(components: {
  opener: LayerOpener;
  manifests: ManifestLookup;
  runs: LazyRuns;
  blobs: BlobStore;
  images: ImageRecords;
  /** Where credentials that come with a layer are kept. */
  given?: RememberedCredentials;
  /** Told of the registries whose images containerd wants. */
  asked?: AskedRegistries;
  hints?: Pick<StartHints, 'learn'>;
  log: Logger;
}): LazyLayers {
  const { opener, manifests, runs, blobs, images, given, asked, hints, log } = components;
  /** Registries that did not answer, and until when (performance.now) they are not asked. */
  const dead = new Map<string, number>();

  function leaveAlone(registry: string): void {
    const now = performance.now();
    for (const [host, untilMs] of dead) if (untilMs <= now) dead.delete(host);
    dead.set(registry, now + DEAD_REGISTRY_MS);
  }

  /** Opens the image's other layers while containerd still works on this one. */
  function openSiblings(request: LayerRequest): void {
    const { manifestDigest } = request;
    if (manifestDigest === undefined) return;
    const signal = AbortSignal.timeout(OFFER_DEADLINE_MS);
    void manifests
      .manifest(request.reference, manifestDigest, { signal })
      .then((manifest) => {
        hints?.learn(request.reference, manifest);
        // the data of a Nydus image is opened with its bootstrap
        const layers = manifest.layers.filter((layer) => !isNydusBlob(layer));
        return Promise.all(layers.map((layer) => opener.open(request.reference, layer, { signal, manifestDigest })));
      })
      .catch((error) => log.debug('opening ahead failed', { error: withContext(error, {}).describe() }));
  }

  /** The descriptor with its annotations, from the labels or else from the manifest. */
  async function describe(request: LayerRequest, signal: AbortSignal): Promise<LayerDescriptor> {
    const { annotations } = request.layer;
    if (Object.keys(annotations).some((key) => /^containerd\.io\/snapshot\/(stargz\/|nydus-)/.test(key))) {
      return request.layer;
    }
    if (request.manifestDigest === undefined) return request.layer;
    const { layers } = await manifests.manifest(request.reference, request.manifestDigest, { signal });
    return layers.find(({ digest }) => digest === request.layer.digest) ?? request.layer;
  }

  /** The layer with the tree of a Nydus image, by the manifest or, without one, as the CRI lists the layers. */
  async function bootstrapOf(request: LayerRequest, signal: AbortSignal): Promise<LayerDescriptor> {
    if (request.manifestDigest !== undefined) {
      const { layers } = await manifests.manifest(request.reference, request.manifestDigest, { signal });
      const found = layers.findLast(isNydusBootstrap);
      if (found !== undefined) return found;
    } else if (request.topLayer !== undefined && request.topLayer !== request.layer.digest) {
      return { digest: request.topLayer, annotations: { [NYDUS.bootstrap]: 'true' } };
    }
    throw new ShoalError('UNSUPPORTED_LAYER', 'it is a Nydus blob, and the image has no bootstrap layer');
  }

  /**
   * A data blob of a Nydus image, which containerd could not unpack: accepted when the bootstrap, the image's last layer,
   * can be read. It is a layer without files.
   */
  async function openNydusBlob(request: LayerRequest, signal: AbortSignal): Promise<void> {
    const { info } = await opener.open(request.reference, await bootstrapOf(request, signal), { signal });
    if (info.devices === undefined) throw new ShoalError('UNSUPPORTED_LAYER', 'the image has no Nydus bootstrap');
    const { digest } = request.layer;
    if ((await blobs.open(digest)) === undefined) await opener.keepUnused(request.reference, digest);
  }

  async function open(
    request: LayerRequest,
    { allLazyBelow }: LayerOffer,
    caller: AbortSignal,
  ): Promise<{ blob: Digest } | undefined> {
    using patience = createPatience({
      firstMs: OFFER_DEADLINE_MS,
      idleMs: OFFER_DEADLINE_MS,
      mostMs: OFFER_PROGRESS_MS,
    });
    const signal = AbortSignal.any([caller, patience.signal]);
    const { digest } = request.layer;
    const { registry } = request.reference;
    const reference = formatReference(request.reference);
    asked?.admit(registry);
    if (request.credential !== undefined) {
      given?.remember(registry, request.reference.repository, request.credential);
    }
    try {
      const isHere = (await blobs.open(digest)) !== undefined;
      if (!isHere && performance.now() < (dead.get(registry) ?? 0)) {
        throw new ShoalError('UNAVAILABLE', `${registry} did not answer a moment ago`);
      }
      if (!isHere) openSiblings(request);
      const layer = isHere ? request.layer : await describe(request, signal);
      if (isNydusBlob(layer)) await openNydusBlob(request, signal);
      const { info } = await opener.open(request.reference, layer, {
        signal,
        manifestDigest: request.manifestDigest,
        onProgress: patience.progress,
      });
      // containerd copies those directories' attributes from the unpacked layer; a mount above it cannot
      if (info.impliesDirs === true && !allLazyBelow) {
        throw new ShoalError('UNSUPPORTED_LAYER', 'it names no parent directories, and layers below it are unpacked');
      }
      dead.delete(registry);
      images.note(reference, request.manifestDigest, { digest, lazy: true });
      return { blob: digest };
    } catch (error) {
      // A pull that was cancelled says nothing about its registry or the layer.
      caller.throwIfAborted();
      const known = withContext(error, { image: reference, layer: digest });
      if (known.code === 'SOURCE_FAILED' || known.code === 'DEADLINE_EXCEEDED') leaveAlone(registry);
      images.note(reference, request.manifestDigest, { digest, lazy: false, reason: known.message });
      const level = hasCode(known, 'UNSUPPORTED_LAYER') ? 'info' : 'warn';
      log[level]('layer is left to containerd', { image: reference, layer: digest, why: known.describe() });
      return undefined;
    }
  }

  function requestOf(offer: LayerOffer): LayerRequest | undefined {
    try {
      return layerRequestFrom(offer.labels);
    } catch (error) {
      log.warn('labels of a layer make no sense', { key: offer.key, why: withContext(error, {}).describe() });
      return undefined;
    }
  }

  return {
    async offer(offer, { signal }) {
      const request = requestOf(offer);
      if (request === undefined) return undefined;
      const opened = await open(request, offer, signal);
      signal.throwIfAborted();
      return opened;
    },
    mountRun: (run, options) => runs.mount({ ...run, name: `s${run.id}` }, options),
    releaseRun: (id) => runs.release(`s${id}`),
    async collect(inUse) {
      const mounted = runs.blobsInUse();
      const keep = await withDevices(blobs, [...inUse, ...mounted]);
      for (const blob of await blobs.list()) if (!keep.has(blob)) await blobs.remove(blob);
      await images.retain(keep);
    },
    async usage(blob) {
      const device = await blobs.open(blob);
      return { sizeBytes: device?.stats().presentBytes ?? 0, inodes: 0 };
    },
  };
}
