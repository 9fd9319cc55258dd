import { hash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { LayerDescriptor } from './layer-reader.ts';
import { normalizePlatform, type Platform } from './platform.ts';
import { asObject, type JsonObject, parseStrictJson } from './strict-json.ts';

/** Bounds of a manifest or index. containerd reads 8 MiB; registries refuse more than 4 MiB. */
export const MANIFEST_LIMITS = {
  /** Bytes of the document. */
  maxBytes: 4 * 1024 * 1024,
  /** Layers of a manifest, entries of an index. The kernel stacks at most 500 layers. */
  maxEntries: 1000,
  /** Nesting; a real manifest has 4 levels. */
  maxDepth: 16,
  /** 1,000 layers with 40 annotations each. */
  maxTokens: 120_000,
} as const;

/** Media types of image manifests. */
export const MANIFEST_TYPES = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
] as const;

/** Media types of artifact manifests, which a registry may still hold: of a draft of the OCI image spec, and of ORAS. */
export const ARTIFACT_TYPES = [
  'application/vnd.oci.artifact.manifest.v1+json',
  'application/vnd.cncf.oras.artifact.manifest.v1+json',
] as const;

/** Media types of indexes (manifest lists). */
export const INDEX_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
] as const;

/** A blob or manifest as another document names it (OCI image spec, descriptor.md); sizes in bytes. */
export interface BlobDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations: Readonly<Record<string, string>>;
}

/** A layer; `foreign` ones need not be in the registry. Their `urls` are never looked at. */
export interface ManifestLayer extends BlobDescriptor, LayerDescriptor {
  readonly mediaType: string;
  readonly size: number;
  readonly foreign: boolean;
}

/** An image manifest: layers in order, lowest first. */
export interface ImageManifest {
  readonly kind: 'manifest';
  readonly digest: Digest;
  readonly mediaType: string;
  readonly config: BlobDescriptor;
  readonly layers: readonly ManifestLayer[];
  readonly annotations: Readonly<Record<string, string>>;
  /** What kind of thing it is when it is not an image (OCI image spec, artifacts). */
  readonly artifactType?: string;
  /** The manifest it is about. */
  readonly subject?: BlobDescriptor;
}

/** What an artifact consists of, however its manifest is written. */
export interface Artifact {
  readonly artifactType: string;
  readonly layers: readonly BlobDescriptor[];
  /** The manifest it is about. */
  readonly subject?: BlobDescriptor;
}

/** One entry of an index; `platform` is normalized as containerd does. */
export interface IndexEntry extends BlobDescriptor {
  readonly platform?: Platform;
  readonly artifactType?: string;
}

/** An index: one manifest per platform. */
export interface ImageIndex {
  readonly kind: 'index';
  readonly digest: Digest;
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
  readonly annotations: Readonly<Record<string, string>>;
}

/** What is already known of a document from the one that names it, or from the response that carried it. */
export interface ExpectedManifest {
  readonly digest?: Digest;
  readonly size?: number;
  readonly mediaType?: string;
}

/**
 * Parses an OCI or Docker schema 2 manifest or index (OCI image spec, manifest.md, image-index.md) after checking
 * digest and size. Throws INVALID_MANIFEST.
 */
export function parseManifest(bytes: Uint8Array, expected: ExpectedManifest = {}): ImageManifest | ImageIndex {
  if (bytes.byteLength > MANIFEST_LIMITS.maxBytes) {
    throw invalid(`it has ${bytes.byteLength} bytes, limit ${MANIFEST_LIMITS.maxBytes}`);
  }
  const digest = checkBytes(bytes, expected);
  const document = asObject(parseStrictJson(bytes, 'manifest', MANIFEST_LIMITS), 'manifest');
  refuseLookalikes(document);
  if (document.schemaVersion !== 2) {
    throw invalid(`schemaVersion is ${JSON.stringify(document.schemaVersion ?? null)}, only 2 is supported`);
  }
  const hasLayers = document.layers !== undefined;
  const hasManifests = document.manifests !== undefined;
  if (hasLayers && hasManifests) throw invalid('it has both "layers" and "manifests"');
  const mediaType = checkMediaType(document, hasManifests ? INDEX_TYPES : MANIFEST_TYPES, expected.mediaType);
  const annotations = parseAnnotations(document.annotations, 'manifest');
  if (hasManifests) {
    const manifests = parseList(document.manifests, 'manifests', parseEntry);
    return { kind: 'index', digest, mediaType, manifests, annotations };
  }
  const config = parseDescriptor(document.config, 'config');
  const layers = parseList(document.layers, 'layers', parseLayer);
  const subject = document.subject === undefined ? {} : { subject: parseDescriptor(document.subject, 'subject') };
  return { kind: 'manifest', digest, mediaType, config, layers, annotations, ...artifactType(document), ...subject };
}

/**
 * Parses the manifest of an artifact: an image manifest, whose config's type stands for the artifact's when it names none,
 * or an artifact manifest. Throws INVALID_MANIFEST.
 */
export function parseArtifact(bytes: Uint8Array, expected: ExpectedManifest): Artifact {
  const document = asObject(parseStrictJson(bytes, 'manifest', MANIFEST_LIMITS), 'manifest');
  const isArtifact = ARTIFACT_TYPES.some((type) => type === document.mediaType);
  if (!isArtifact) {
    const manifest = parseManifest(bytes, expected);
    if (manifest.kind === 'index') throw invalid('it is an index, not an artifact');
    return { ...manifest, artifactType: manifest.artifactType ?? manifest.config.mediaType };
  }
  checkBytes(bytes, expected);
  // The draft called it both.
  const subject = document.subject ?? document.refers;
  return {
    artifactType: artifactType(document).artifactType ?? '',
    layers: parseList(document.blobs ?? [], 'blobs', parseDescriptor),
    ...(subject === undefined ? {} : { subject: parseDescriptor(subject, 'subject') }),
  };
}

function checkBytes(bytes: Uint8Array, expected: ExpectedManifest): Digest {
  if (expected.size !== undefined && expected.size !== bytes.byteLength) {
    throw invalid(`it has ${bytes.byteLength} bytes, its descriptor says ${expected.size}`);
  }
  const algorithm = expected.digest === undefined ? 'sha256' : digestAlgorithm(expected.digest);
  if (algorithm === 'blake3') throw invalid('blake3 digests of manifests are not supported');
  const found = hash(algorithm, bytes, 'hex');
  if (expected.digest !== undefined && digestHex(expected.digest) !== found) {
    throw invalid(`its digest is ${algorithm}:${found}, expected ${expected.digest}`);
  }
  return parseDigest(`${algorithm}:${found}`);
}

/** Go's JSON decoder takes `Layers` for `layers`: with both, containerd and shoal would see two different images. */
function refuseLookalikes(document: JsonObject): void {
  const known = ['schemaVersion', 'mediaType', 'config', 'layers', 'manifests', 'annotations', 'digest', 'size'];
  for (const key of Object.keys(document)) {
    const twin = known.find((name) => name !== key && name.toLowerCase() === key.toLowerCase());
    if (twin !== undefined) throw invalid(`member ${JSON.stringify(key)} must be written "${twin}"`);
  }
}

function checkMediaType(document: JsonObject, allowed: readonly string[], expected: string | undefined): string {
  const own = document.mediaType;
  if (own !== undefined && typeof own !== 'string') throw invalid('mediaType is not a string');
  for (const type of [own, expected]) {
    if (type !== undefined && !allowed.includes(type)) {
      throw invalid(`media type ${JSON.stringify(type.slice(0, 100))} does not fit its content`);
    }
  }
  if (own !== undefined && expected !== undefined && own !== expected) {
    throw invalid(`media type is ${own}, expected ${expected}`);
  }
  return own ?? expected ?? (allowed[0] as string);
}

function parseList<T>(value: unknown, name: string, parse: (value: unknown, what: string) => T): T[] {
  if (!Array.isArray(value)) throw invalid(`"${name}" is not a list`);
  if (value.length > MANIFEST_LIMITS.maxEntries) {
    throw invalid(`"${name}" has ${value.length} entries, limit ${MANIFEST_LIMITS.maxEntries}`);
  }
  return value.map((entry, index) => parse(entry, `${name}[${index}]`));
}

function parseLayer(value: unknown, what: string): ManifestLayer {
  const descriptor = parseDescriptor(value, what);
  return { ...descriptor, foreign: /\.nondistributable\.|\.foreign\./.test(descriptor.mediaType) };
}

function parseEntry(value: unknown, what: string): IndexEntry {
  const descriptor = { ...parseDescriptor(value, what), ...artifactType(value as JsonObject) };
  const platform = (value as JsonObject).platform;
  if (platform === undefined || platform === null) return descriptor;
  const fields = asObject(platform, `manifest: ${what}.platform`);
  return {
    ...descriptor,
    platform: normalizePlatform({
      os: platformField(fields, 'os', what),
      architecture: platformField(fields, 'architecture', what),
      variant: platformField(fields, 'variant', what),
    }),
  };
}

function artifactType({ artifactType: type }: JsonObject): { artifactType?: string } {
  return typeof type === 'string' && type.length <= 255 ? { artifactType: type } : {};
}

function platformField(fields: JsonObject, name: string, what: string): string {
  const value = fields[name] ?? '';
  if (typeof value !== 'string' || value.length > 64) throw invalid(`${what}.platform.${name} is not a short string`);
  return value;
}

function parseDescriptor(value: unknown, what: string): BlobDescriptor {
  const fields = asObject(value, `manifest: ${what}`);
  refuseLookalikes(fields);
  const mediaType = fields.mediaType;
  if (typeof mediaType !== 'string' || !/^[A-Za-z0-9][\w.+!#$&^-]{0,126}\/[\w.+!#$&^-]{1,127}$/.test(mediaType)) {
    throw invalid(`${what}.mediaType is not a media type`);
  }
  const size = fields.size;
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw invalid(`${what}.size is not a size`);
  let digest: Digest;
  try {
    digest = parseDigest(fields.digest);
  } catch (cause) {
    throw invalid(`${what}.digest is not a digest`, cause);
  }
  return { mediaType, digest, size, annotations: parseAnnotations(fields.annotations, what) };
}

function parseAnnotations(value: unknown, what: string): Readonly<Record<string, string>> {
  // A null prototype: a key `__proto__` is a key like any other.
  const annotations: Record<string, string> = Object.create(null);
  if (value === undefined || value === null) return annotations;
  for (const [key, text] of Object.entries(asObject(value, `manifest: ${what}.annotations`))) {
    if (typeof text !== 'string')
      throw invalid(`${what}.annotations[${JSON.stringify(key.slice(0, 80))}] is not a string`);
    annotations[key] = text;
  }
  return annotations;
}

function invalid(why: string, cause?: unknown): ShoalError {
  return new ShoalError('INVALID_MANIFEST', `manifest: ${why}`, { cause });
}
