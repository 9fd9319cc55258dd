import { type Digest, parseDigest } from '../core/digest.ts';
import { withContext } from '../errors.ts';
import { edgesByDevice } from '../image/file-edges.ts';
import type { RangedBlob } from '../image/layer-reader.ts';
import { impliesDirs } from '../image/layer-tree.ts';
import { formatReference } from '../image/reference.ts';
import { SOCI_INDEX_DIGEST, type ZtocDescriptor } from '../image/soci/soci-index.ts';
import { readSociLayer } from '../image/soci/soci-layer.ts';
import { encodeTree } from '../image/tree-codec.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import { fetchSociIndex, fetchZtoc, referringSociIndexes } from '../source/origin/soci-artifact.ts';
import type { Documents } from '../source/peer/data/documents.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { ManifestLookup } from './manifests.ts';
import type { LayerOrigin } from './plain-layers.ts';

/** Plain layers that somebody made a SOCI index for. */
export interface SociLayers {
  /**
   * The layer's device, read by its ztoc; undefined when there is none that may be believed and used, which is logged.
   * Throws STORE_IO, and the signal's reason.
   */
  open(blob: RangedBlob, origin: LayerOrigin, options: { signal: AbortSignal }): Promise<BlobDevice | undefined>;
}

/** Images whose list of ztocs is remembered: those pulled at the same time. */
const KEPT = 64;
/** Finding and fetching a ztoc must not take longer than it saves. */
const DEADLINE_MS = 15_000;

/** A ztoc, and how it came to be believed. */
interface Found {
  readonly ztoc: ZtocDescriptor;
  readonly why: string;
}

/**
 * `trustReferrers`: also indexes that refer to the image are believed, and so whoever may push to its repository; those
 * that the image's manifest names came with it by digest.
 */
export function createSociLayers(
  components: {
    blobs: BlobStore;
    client: RegistryClient;
    manifests: ManifestLookup;
    /** Where ztocs are that neighbours have. */
    documents?: Documents | undefined;
    log: Logger;
  },
  init: { trustReferrers: boolean; wholeBytesMax: number; maxEntries: number },
): SociLayers {
  const { blobs, client, manifests, log } = components;
  const known = new Map<Digest, Promise<readonly ZtocDescriptor[]>>();

  /** Fetched once for all layers of an image. */
  function listed(key: Digest, fetch: () => Promise<readonly ZtocDescriptor[]>): Promise<readonly ZtocDescriptor[]> {
    let list = known.get(key);
    if (list === undefined) {
      list = fetch();
      known.set(key, list);
      list.catch(() => known.delete(key));
      const [oldest] = known.keys();
      if (known.size > KEPT && oldest !== undefined) known.delete(oldest);
    }
    return list;
  }

  async function find(layer: Digest, origin: LayerOrigin, signal: AbortSignal): Promise<Found | undefined> {
    const { manifest: subject } = origin;
    if (subject === undefined) return undefined;
    const named = (await manifests.manifest(origin, subject, { signal })).annotations;
    const index = named[SOCI_INDEX_DIGEST];
    if (index === undefined && !init.trustReferrers) return undefined;
    const digest = index === undefined ? undefined : parseDigest(index);
    const list =
      digest === undefined
        ? listed(subject, () => referringSociIndexes(client, origin, subject, { signal }))
        : listed(digest, () => fetchSociIndex(client, origin, digest, { signal }));
    const ztoc = (await list).find((each) => each.layer === layer);
    const why = digest === undefined ? 'SOCI index from the registry' : 'SOCI index that the image names';
    return ztoc === undefined ? undefined : { ztoc, why };
  }

  /** From a neighbour that has it, else from the registry; its digest says whether it is right. */
  async function fetched(ztoc: ZtocDescriptor, origin: LayerOrigin, signal: AbortSignal): Promise<Uint8Array> {
    const fetch = () => fetchZtoc(client, origin, ztoc, { signal });
    const use = { image: formatReference(origin), subject: ztoc.layer, signal };
    return (await components.documents?.through(ztoc.digest, use, fetch)) ?? (await fetch());
  }

  return {
    async open(blob, origin, options) {
      if (blob.size <= init.wholeBytesMax) return undefined;
      const signal = AbortSignal.any([options.signal, AbortSignal.timeout(DEADLINE_MS)]);
      let read: Awaited<ReturnType<typeof readSociLayer>>;
      let found: Found | undefined;
      try {
        found = await find(blob.digest, origin, signal);
        if (found === undefined) return undefined;
        const { digest } = found.ztoc;
        const bytes = await fetched(found.ztoc, origin, signal);
        read = await readSociLayer(blob, { digest, bytes }, { signal, maxEntries: init.maxEntries });
      } catch (error) {
        options.signal.throwIfAborted();
        const why = withContext(error, {}).describe();
        log.warn('a SOCI index is not used', { layer: blob.digest, ztoc: found?.ztoc.digest, why });
        return undefined;
      }
      const { registry, repository } = origin;
      return await blobs.create(blob.digest, {
        chunks: read.chunks,
        tree: encodeTree(read.tree),
        edges: edgesByDevice(read.tree)[0],
        ...(read.windows === undefined ? {} : { windows: read.windows }),
        info: {
          format: 'soci',
          why: found.why,
          size: blob.size,
          sources: [{ registry, repository }],
          ...(impliesDirs(read.tree) ? { impliesDirs: true as const } : {}),
        },
      });
    },
  };
}
