import { type Digest, parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { parseArtifact } from '../manifest.ts';

/** A ztoc as a SOCI index lists it. */
export interface ZtocDescriptor {
  /** The layer it is for. */
  readonly layer: Digest;
  readonly digest: Digest;
  readonly size: number;
}

/** Artifact types of a SOCI index: the first version refers to an image, of the second the image itself speaks. */
export const SOCI_INDEX_TYPES = {
  v1: 'application/vnd.amazon.soci.index.v1+json',
  v2: 'application/vnd.amazon.soci.index.v2+json',
} as const;

/** Annotation of an image manifest: the digest of its SOCI index. */
export const SOCI_INDEX_DIGEST = 'com.amazon.soci.index-digest';

const ZTOC_TYPE = 'application/octet-stream';
const LAYER_DIGEST = 'com.amazon.soci.image-layer-digest';

/**
 * The ztocs of a SOCI index, its own digest checked. With `subject`, of the first version, it must refer to that manifest;
 * without, it must be of the second. Throws INVALID_MANIFEST, INVALID_DIGEST, UNSUPPORTED_LAYER for something else.
 */
export function parseSociIndex(
  bytes: Uint8Array,
  { digest, subject }: { digest: Digest; subject?: Digest | undefined },
): readonly ZtocDescriptor[] {
  const artifact = parseArtifact(bytes, { digest });
  const wanted = subject === undefined ? SOCI_INDEX_TYPES.v2 : SOCI_INDEX_TYPES.v1;
  if (artifact.artifactType !== wanted) {
    throw new ShoalError('UNSUPPORTED_LAYER', `${digest} is no SOCI index of type ${wanted}`);
  }
  if (subject !== undefined && artifact.subject?.digest !== subject) {
    throw new ShoalError('UNSUPPORTED_LAYER', `SOCI index ${digest} is about another image`);
  }
  const found: ZtocDescriptor[] = [];
  for (const { mediaType, annotations, digest: ztoc, size } of artifact.layers) {
    const layer = annotations[LAYER_DIGEST];
    if (mediaType === ZTOC_TYPE && layer !== undefined) found.push({ layer: parseDigest(layer), digest: ztoc, size });
  }
  return found;
}
