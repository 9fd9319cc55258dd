import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import { type ImageIndex, type ImageManifest, parseManifest } from '../image/manifest.ts';
import type { Reference } from '../image/reference.ts';

/** Manifests by digest; asked for by every layer of a pull, fetched once. Throws INVALID_MANIFEST for an index. */
export interface ManifestLookup {
  manifest(reference: Reference, digest: Digest, options: { signal: AbortSignal }): Promise<ImageManifest>;
}

/** Manifests kept in memory: enough for the pulls that run at the same time. */
const KEPT = 64;

export function createManifestLookup(components: {
  fetch(reference: Reference, digest: Digest, options: { signal: AbortSignal }): Promise<Uint8Array>;
}): ManifestLookup {
  const known = new Map<Digest, Promise<ImageManifest>>();

  async function fetchManifest(reference: Reference, digest: Digest, signal: AbortSignal): Promise<ImageManifest> {
    const manifest: ImageManifest | ImageIndex = parseManifest(await components.fetch(reference, digest, { signal }), {
      digest,
    });
    if (manifest.kind === 'index') throw new ShoalError('INVALID_MANIFEST', `${digest} is an index, not a manifest`);
    return manifest;
  }

  return {
    manifest(reference, digest, { signal }) {
      const found = known.get(digest);
      if (found !== undefined) return found;
      const fetched = fetchManifest(reference, digest, signal);
      known.set(digest, fetched);
      fetched.catch(() => known.delete(digest));
      for (const oldest of known.keys()) {
        if (known.size <= KEPT) break;
        known.delete(oldest);
      }
      return fetched;
    },
  };
}
