import { type Digest, parseDigest, sha256 } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { LAYER_INDEX_TYPE, MAX_INDEX_BYTES } from '../../image/layer-index/layer-index.ts';
import { type BlobDescriptor, type ImageManifest, parseManifest } from '../../image/manifest.ts';
import type { Reference } from '../../image/reference.ts';
import { type RegistryClient, type Repository, referrersTag } from './registry-client.ts';
import type { RegistryPusher } from './registry-pusher.ts';

/** Artifact type of a manifest whose layers are the layer indexes of its subject, an image manifest. */
export const INDEX_ARTIFACT_TYPE = 'application/vnd.shoal.index.v1+json';

/** An index as an artifact lists it. */
export interface IndexDescriptor {
  /** The layer it is for. */
  readonly layer: Digest;
  readonly digest: Digest;
  readonly size: number;
  /** The artifact's manifest. */
  readonly artifact: Digest;
}

/** Annotation of an artifact's layer: which layer of the image it indexes. */
const LAYER_ANNOTATION = 'shoal.layer-digest';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
/** The blob that stands for no configuration (OCI image spec, guidance for empty descriptors). */
const EMPTY_JSON = Buffer.from('{}');
const EMPTY_TYPE = 'application/vnd.oci.empty.v1+json';
/** Artifacts looked at for one image: each costs a request. */
const ARTIFACTS_MAX = 8;

/** The indexes a registry has for the layers of an image manifest, of the newest artifacts first. */
export async function listIndexes(
  client: RegistryClient,
  repository: Repository,
  subject: Digest,
  { signal }: { signal: AbortSignal },
): Promise<readonly IndexDescriptor[]> {
  const referrers = await client.referrers(repository, subject, { signal });
  const artifacts = referrers.filter(({ artifactType }) => artifactType === INDEX_ARTIFACT_TYPE).slice(-ARTIFACTS_MAX);
  const found: IndexDescriptor[] = [];
  for (const { digest } of artifacts.reverse()) {
    const { bytes } = await client.manifest(repository as Reference, digest, { signal });
    const manifest = parseManifest(bytes, { digest });
    if (manifest.kind !== 'manifest' || manifest.subject?.digest !== subject) continue;
    for (const entry of manifest.layers) {
      const layer = entry.annotations[LAYER_ANNOTATION];
      if (entry.mediaType !== LAYER_INDEX_TYPE || layer === undefined) continue;
      found.push({ layer: parseDigest(layer), digest: entry.digest, size: entry.size, artifact: digest });
    }
  }
  return found;
}

/** The bytes of an index, digest checked. Throws TOO_LARGE, INVALID_LAYER or what the client throws. */
export async function fetchIndex(
  client: RegistryClient,
  repository: Repository,
  { digest, size }: Pick<IndexDescriptor, 'digest' | 'size'>,
  { signal }: { signal: AbortSignal },
): Promise<Uint8Array> {
  if (size > MAX_INDEX_BYTES) throw new ShoalError('TOO_LARGE', `a layer index of ${size} bytes`);
  const blob = await client.blob(repository, { digest, size }, { signal });
  const bytes = await blob.read(0, size, { signal });
  if (sha256(bytes) !== digest) throw new ShoalError('INVALID_LAYER', `layer index ${digest} has other bytes`);
  return bytes;
}

/** Stores indexes of an image's layers as an artifact that refers to it; the artifact's digest. */
export async function pushIndexes(
  components: { client: RegistryClient; pusher: RegistryPusher },
  repository: Repository,
  content: {
    readonly image: { readonly manifest: ImageManifest; readonly bytes: Uint8Array };
    readonly indexes: readonly { readonly layer: Digest; readonly bytes: Uint8Array }[];
  },
  { signal }: { signal: AbortSignal },
): Promise<Digest> {
  const { client, pusher } = components;
  const { manifest, bytes: imageBytes } = content.image;
  const subject = { mediaType: manifest.mediaType, digest: manifest.digest, size: imageBytes.byteLength };
  const config = { mediaType: EMPTY_TYPE, digest: await pusher.putBlob(repository, EMPTY_JSON, { signal }), size: 2 };
  const layers: object[] = [];
  for (const { layer, bytes } of content.indexes) {
    const digest = await pusher.putBlob(repository, bytes, { signal });
    layers.push({
      mediaType: LAYER_INDEX_TYPE,
      digest,
      size: bytes.byteLength,
      annotations: { [LAYER_ANNOTATION]: layer },
    });
  }
  const document = {
    schemaVersion: 2,
    mediaType: MANIFEST_TYPE,
    artifactType: INDEX_ARTIFACT_TYPE,
    config,
    layers,
    subject,
  };
  const bytes = Buffer.from(JSON.stringify(document));
  const digest = sha256(bytes);
  const { subjectKnown } = await pusher.putManifest(
    repository,
    { target: digest, mediaType: MANIFEST_TYPE, bytes },
    { signal },
  );
  if (!subjectKnown)
    await addToTag(client, pusher, repository, subject.digest, { digest, size: bytes.byteLength }, signal);
  return digest;
}

/** Where the registry keeps no list of referrers, the writer does. Two writers at a time may lose one entry. */
async function addToTag(
  client: RegistryClient,
  pusher: RegistryPusher,
  repository: Repository,
  subject: Digest,
  { digest, size }: { digest: Digest; size: number },
  signal: AbortSignal,
): Promise<void> {
  const known = await client.referrers(repository, subject, { signal });
  if (known.some((entry) => entry.digest === digest)) return;
  const added = { mediaType: MANIFEST_TYPE, digest, size, artifactType: INDEX_ARTIFACT_TYPE, annotations: {} };
  const manifests = [...known, added].map(plainEntry);
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests }));
  await pusher.putManifest(repository, { target: referrersTag(subject), mediaType: INDEX_TYPE, bytes }, { signal });
}

function plainEntry(entry: BlobDescriptor & { readonly artifactType?: string }): object {
  const { mediaType, digest, size, annotations, artifactType } = entry;
  return { mediaType, digest, size, ...(artifactType === undefined ? {} : { artifactType }), annotations };
}
