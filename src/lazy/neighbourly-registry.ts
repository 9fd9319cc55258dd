import { type Digest, parseDigest } from '../core/digest.ts';
import { formatReference, type Reference } from '../image/reference.ts';
import type { RegistryClient, Repository } from '../source/origin/registry-client.ts';
import type { Documents } from '../source/peer/data/documents.ts';

/**
 * A registry client that asks neighbours for manifests and configs whose digest is known, and `registry` for all else:
 * what a tag means only the registry (or a mirror that may say so) knows.
 */
export function createNeighbourlyRegistry(components: {
  registry: RegistryClient;
  documents: Documents;
}): RegistryClient {
  const { registry, documents } = components;
  return {
    resolve: (reference, options) => registry.resolve(reference, options),
    async manifest(reference, target, options) {
      const digest = digestIn(target ?? reference.digest);
      if (digest === undefined) return await registry.manifest(reference, target, options);
      let fetched: Awaited<ReturnType<RegistryClient['manifest']>> | undefined;
      const use = { image: formatReference(reference), subject: digest, signal: options.signal };
      const bytes = await documents.through(digest, use, async () => {
        fetched = await registry.manifest(reference, digest, options);
        return fetched.bytes;
      });
      return fetched ?? { bytes, digest };
    },
    async config(where, descriptor, options) {
      const { digest } = descriptor;
      // Without the image's name nobody can say whether it is private.
      if (!isReference(where)) return await registry.config(where, descriptor, options);
      const use = { image: formatReference(where), subject: digest, signal: options.signal };
      return await documents.through(digest, use, () => registry.config(where, descriptor, options));
    },
    blob: (where, descriptor, options) => registry.blob(where, descriptor, options),
    blobTail: (where, digest, maxBytes, options) => registry.blobTail(where, digest, maxBytes, options),
    referrers: (where, subject, options) => registry.referrers(where, subject, options),
    pullToken: (where) => registry.pullToken(where),
    renewed: (where) => registry.renewed(where),
    close: () => registry.close(),
    [Symbol.asyncDispose]: () => registry.close(),
  };
}

function digestIn(target: string | undefined): Digest | undefined {
  return target?.includes(':') === true ? parseDigest(target) : undefined;
}

function isReference(where: Repository | Reference): where is Reference {
  return 'tag' in where || 'digest' in where;
}
