import type { ChunkPlace, ExplainReport, Holder, LayerFacts } from '../control/explain.ts';
import type { ControlRoute } from '../control/server.ts';
import { type Digest, digestBytes, parseDigest } from '../core/digest.ts';
import { hasCode, ShoalError } from '../errors.ts';
import { formatReference, parseReference } from '../image/reference.ts';
import type { PeerDirectory } from '../source/peer/directory.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';
import type { FetchLedger, FetchRecord } from '../store/ledger.ts';
import { peersIn, story, whyNoNeighbour } from './fetch-story.ts';
import type { ImageRecord, ImageRecords, LayerOutcome } from './images.ts';
import { sourcesOf } from './source-status.ts';

/** Says of an image, a layer or a chunk where it is, where it came from, and why from there. */
export interface Explainer {
  /** Throws INVALID_REFERENCE, INVALID_DIGEST, or NOT_FOUND when this node knows nothing by that name. */
  explain(target: string, options: { signal: AbortSignal }): Promise<ExplainReport>;
}

interface Components {
  readonly blobs: BlobStore;
  readonly images: Pick<ImageRecords, 'list' | 'namesOf'>;
  readonly ledger: FetchLedger;
  /** Without a swarm there is none. */
  readonly directory?: Pick<PeerDirectory, 'peers' | 'find' | 'haveMap'> | undefined;
}

/** Fetches shown for a layer or a chunk, and failures shown for an image. */
const SHOWN = 10;
/** How long neighbours are asked, ms: people wait. */
const ASK_MS = 2_000;
/** Neighbours asked about one layer, and shown for one chunk. */
const ASKED = 32;

export function createExplainer(components: Components): Explainer {
  return {
    async explain(target, { signal }) {
      const digest = asDigest(target);
      const image = findImage(components.images.list(), target, digest);
      if (image !== undefined) return explainImage(components, image);
      if (digest === undefined) throw new ShoalError('NOT_FOUND', `no image ${target} on this node`);
      const outcome = components.images
        .list()
        .flatMap(({ layers }) => layers)
        .find((layer) => layer.digest === digest);
      const device = digest.startsWith('blake3:') ? undefined : await components.blobs.open(digest);
      if (device !== undefined || outcome !== undefined) {
        return explainLayer(components, outcome ?? { digest, lazy: true }, device, signal);
      }
      return explainChunk(components, digest, signal);
    },
  };
}

/** `GET /v1/explain?target=IMAGE|DIGEST`. */
export function explainRoute(explainer: Explainer): ControlRoute {
  return {
    method: 'GET',
    path: '/v1/explain',
    handle({ query, signal }) {
      const target = query.get('target');
      if (target === null || target === '') throw new ShoalError('INVALID_ARGUMENT', '"target" is missing');
      return explainer.explain(target, { signal });
    },
  };
}

function asDigest(target: string): Digest | undefined {
  try {
    return parseDigest(target);
  } catch (error) {
    if (/^(sha256|sha512|blake3):/.test(target) || !hasCode(error, 'INVALID_DIGEST')) throw error;
    return undefined;
  }
}

/** By the name it was pulled by, the same name as people write it (`python:3.12`), or the digest of its manifest. */
function findImage(
  images: readonly ImageRecord[],
  target: string,
  digest: Digest | undefined,
): ImageRecord | undefined {
  if (digest !== undefined) return images.find(({ manifestDigest }) => manifestDigest === digest);
  const exact = images.find(({ reference }) => reference === target);
  if (exact !== undefined) return exact;
  const full = formatReference(parseReference(target));
  return images.find(({ reference }) => reference === full);
}

async function explainImage(components: Components, image: ImageRecord): Promise<ExplainReport> {
  const { ledger } = components;
  const blobs = new Set(image.layers.map(({ digest }) => digest));
  // the manifest is asked of neighbours as well
  if (image.manifestDigest !== undefined) blobs.add(image.manifestDigest);
  const records = ledger.recent(({ blob }) => blobs.has(blob), Number.POSITIVE_INFINITY);
  const layers = image.layers.map(async (layer) =>
    factsOf(layer, layer.lazy ? await components.blobs.open(layer.digest) : undefined),
  );
  return {
    kind: 'image',
    reference: image.reference,
    ...(image.manifestDigest === undefined ? {} : { manifestDigest: image.manifestDigest }),
    layers: await Promise.all(layers),
    sources: sourcesOf(ledger, image),
    peers: peersIn(records),
    failures: records
      .filter((record) => story(record).source === null && record.steps.some(isFailure))
      .slice(0, SHOWN)
      .map(story),
  };
}

async function explainLayer(
  components: Components,
  outcome: LayerOutcome,
  device: BlobDevice | undefined,
  signal: AbortSignal,
): Promise<ExplainReport> {
  const { digest } = outcome;
  const records = components.ledger.recent(({ blob }) => blob === digest, Number.POSITIVE_INFINITY);
  const holders = await holdersOfLayer(components, digest, signal);
  return {
    kind: 'layer',
    layer: factsOf(outcome, device),
    images: components.images.namesOf(digest),
    repositories: device?.info.sources.map(({ registry, repository }) => `${registry}/${repository}`) ?? [],
    sources: sourcesOf(components.ledger, { layers: [outcome] }),
    peers: peersIn(records),
    ...(holders === undefined ? {} : { holders }),
    fetches: records.slice(0, SHOWN).map(story),
  };
}

async function explainChunk(components: Components, digest: Digest, signal: AbortSignal): Promise<ExplainReport> {
  const { blobs, ledger, directory } = components;
  const held = await blobs.holder(digest);
  const devices = new Set([...blobs.devices(), ...(held === undefined ? [] : [held.device])]);
  const places = [...devices].flatMap((device) => placesOn(device, digest));
  const records: readonly FetchRecord[] = ledger.recent((record) => record.digest === digest, SHOWN);
  if (places.length === 0 && records.length === 0) {
    throw new ShoalError('NOT_FOUND', `${digest} is no image, layer or chunk of this node`);
  }
  const holders = await holdersOfChunk(components, digest, signal);
  const why = whyNoNeighbour(records[0], { hasSwarm: directory !== undefined });
  return {
    kind: 'chunk',
    digest,
    places,
    ...(holders === undefined ? {} : { holders }),
    fetches: records.map(story),
    ...(why === undefined ? {} : { whyNoNeighbour: why }),
  };
}

function isFailure({ outcome }: { outcome: string }): boolean {
  return outcome !== 'served' && outcome !== 'missing' && outcome !== 'aborted';
}

function factsOf({ digest, reason }: LayerOutcome, device: BlobDevice | undefined): LayerFacts {
  let chunksHere = 0;
  if (device !== undefined) {
    for (let row = 0; row < device.table.count; row += 1) if (device.hasChunk(row)) chunksHere += 1;
  }
  return {
    digest,
    format: device?.info.format ?? 'unpacked',
    lazy: device !== undefined,
    ...(reason === undefined ? {} : { why: reason }),
    chunksHere,
    chunksTotal: device?.table.count ?? 0,
    bytesHere: device?.stats().presentBytes ?? 0,
    bytesTotal: device?.size ?? 0,
  };
}

function placesOn(device: BlobDevice, digest: Digest): ChunkPlace[] {
  const { table } = device;
  if (!digest.startsWith(`${table.algorithm}:`)) return [];
  const wanted = digestBytes(digest);
  const found: ChunkPlace[] = [];
  for (let row = 0; row < table.count; row += 1) {
    const bytes = table.digestBytesAt(row);
    if (bytes[0] !== wanted[0] || Buffer.compare(bytes, wanted) !== 0) continue;
    found.push({ layer: device.blob, row, bytes: table.row(row).length, here: device.hasChunk(row) });
  }
  return found;
}

async function holdersOfLayer(
  { directory }: Components,
  blob: Digest,
  caller: AbortSignal,
): Promise<Holder[] | undefined> {
  if (directory === undefined) return undefined;
  const signal = AbortSignal.any([caller, AbortSignal.timeout(ASK_MS)]);
  const asked = directory.peers().slice(0, ASKED);
  const holders = await Promise.all(
    asked.map(async (peer): Promise<Holder | undefined> => {
      const map = await directory.haveMap(peer, blob, { signal }).catch(() => undefined);
      if (map === undefined) return undefined;
      let chunks = 0;
      for (let row = 0; row < map.rows; row += 1) if (((map.bits[row >>> 3] ?? 0) >>> (row & 7)) & 1) chunks += 1;
      return { peer: peer.id, address: peer.address, zone: peer.zone, chunks };
    }),
  );
  caller.throwIfAborted();
  return holders.filter((holder) => holder !== undefined);
}

async function holdersOfChunk(
  { directory }: Components,
  digest: Digest,
  caller: AbortSignal,
): Promise<Holder[] | undefined> {
  if (directory === undefined) return undefined;
  const holders = new Map<string, Holder>();
  try {
    for await (const { id, address, zone } of directory.find(digest, {
      signal: AbortSignal.any([caller, AbortSignal.timeout(ASK_MS)]),
    })) {
      holders.set(id, { peer: id, address, zone });
      if (holders.size === ASKED) break;
    }
  } catch (error) {
    caller.throwIfAborted();
    if (!(error instanceof Error) || error.name !== 'TimeoutError') throw error;
  }
  return [...holders.values()];
}
