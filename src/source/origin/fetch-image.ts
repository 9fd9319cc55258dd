import type { Digest } from '../../core/digest.ts';
import { ShoalError, withContext } from '../../errors.ts';
import { type ImageManifest, parseManifest } from '../../image/manifest.ts';
import { chooseManifest, type Platform } from '../../image/platform.ts';
import { formatReference, type Reference } from '../../image/reference.ts';
import type { RegistryClient } from './registry-client.ts';

/** An image as a registry has it for one platform. */
export interface FetchedImage {
  /** What the reference names: an index's digest where there is one. */
  readonly digest: Digest;
  readonly manifest: ImageManifest;
  /** The manifest as the registry has it, for whoever stores it. */
  readonly bytes: Uint8Array;
}

/** Indexes within indexes that are followed. */
const MAX_DEPTH = 3;

/**
 * Fetches the manifest of an image for a platform, through indexes, every step verified by digest and size. Throws
 * INVALID_MANIFEST, NOT_FOUND for an image or a platform that is not there, and what the client throws; all name the
 * image.
 */
export async function fetchImage(
  client: RegistryClient,
  reference: Reference,
  { platform, signal }: { platform: Platform; signal: AbortSignal },
): Promise<FetchedImage> {
  try {
    const first = await client.manifest(reference, undefined, { signal });
    let bytes = first.bytes;
    let document = parseManifest(bytes, { digest: first.digest, ...typeOf(first.mediaType) });
    for (let depth = 0; document.kind === 'index'; depth += 1) {
      if (depth === MAX_DEPTH) throw new ShoalError('INVALID_MANIFEST', `indexes are nested deeper than ${MAX_DEPTH}`);
      const { digest, size, mediaType } = chooseManifest(document, platform);
      ({ bytes } = await client.manifest(reference, digest, { signal }));
      document = parseManifest(bytes, { digest, size, mediaType });
    }
    return { digest: first.digest, manifest: document, bytes };
  } catch (error) {
    const image = formatReference(reference);
    if (error instanceof ShoalError && error.context.status === 404) {
      throw new ShoalError('NOT_FOUND', 'the registry has no such image', { image, cause: error });
    }
    if (error instanceof ShoalError) throw withContext(error, { image });
    throw error;
  }
}

function typeOf(mediaType: string | undefined): { mediaType?: string } {
  return mediaType === undefined ? {} : { mediaType };
}
