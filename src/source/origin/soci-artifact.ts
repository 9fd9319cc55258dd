import type { Digest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { hashInTurns } from '../../image/readers/hash-in-turns.ts';
import type { Reference } from '../../image/reference.ts';
import { parseSociIndex, SOCI_INDEX_TYPES, type ZtocDescriptor } from '../../image/soci/soci-index.ts';
import type { RegistryClient, Repository } from './registry-client.ts';

/** A ztoc: 32 KiB for each 4 MiB of the layer, and some 200 bytes for each file; 16 GiB with a million files. */
const MAX_ZTOC_BYTES = 384 * 1024 * 1024;
/** Artifacts looked at for one image: each costs a request. */
const ARTIFACTS_MAX = 8;

/** The ztocs of the SOCI index with this digest, which the image's manifest names. Throws what the client or the parser throws. */
export async function fetchSociIndex(
  client: RegistryClient,
  repository: Repository,
  digest: Digest,
  { signal }: { signal: AbortSignal },
): Promise<readonly ZtocDescriptor[]> {
  const { bytes } = await client.manifest(repository as Reference, digest, { signal });
  return parseSociIndex(bytes, { digest });
}

/** The ztocs of SOCI indexes that refer to this manifest, the newest index first. */
export async function referringSociIndexes(
  client: RegistryClient,
  repository: Repository,
  subject: Digest,
  { signal }: { signal: AbortSignal },
): Promise<readonly ZtocDescriptor[]> {
  const referrers = await client.referrers(repository, subject, { signal });
  // Old lists under a tag do not say of what type an artifact is.
  const candidates = referrers.filter(({ artifactType = SOCI_INDEX_TYPES.v1 }) => artifactType === SOCI_INDEX_TYPES.v1);
  const found: ZtocDescriptor[] = [];
  for (const { digest } of candidates.slice(-ARTIFACTS_MAX).reverse()) {
    const { bytes } = await client.manifest(repository as Reference, digest, { signal });
    try {
      found.push(...parseSociIndex(bytes, { digest, subject }));
    } catch (error) {
      // One that is something else says nothing about the others.
      if (!(error instanceof ShoalError)) throw error;
    }
  }
  return found;
}

/** The bytes of a ztoc, digest checked. Throws TOO_LARGE, INVALID_LAYER or what the client throws. */
export async function fetchZtoc(
  client: RegistryClient,
  repository: Repository,
  { digest, size }: ZtocDescriptor,
  { signal }: { signal: AbortSignal },
): Promise<Uint8Array> {
  if (size > MAX_ZTOC_BYTES) throw new ShoalError('TOO_LARGE', `a ztoc of ${size} bytes`);
  if (size === 0) throw new ShoalError('INVALID_LAYER', 'an empty ztoc');
  const blob = await client.blob(repository, { digest, size }, { signal });
  const bytes = await blob.read(0, size, { signal });
  if (`sha256:${await hashInTurns(bytes, signal)}` !== digest) {
    throw new ShoalError('INVALID_LAYER', `ztoc ${digest} has other bytes`);
  }
  return bytes;
}
