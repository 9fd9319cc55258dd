import type { Digest } from '../core/digest.ts';
import { fetchIndex, type IndexDescriptor, listIndexes } from '../source/origin/index-artifact.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { IndexSource } from './plain-layers.ts';

/** Images whose list of indexes is remembered: those pulled at the same time. */
const KEPT = 64;
/** Finding and fetching an index must not take longer than it saves. */
const DEADLINE_MS = 15_000;

/** Indexes that the registry has for an image. Only for operators who trust whoever can push to the repository. */
export function createRegistryIndexes({ client }: { client: RegistryClient }): IndexSource {
  const known = new Map<Digest, Promise<readonly IndexDescriptor[]>>();

  return {
    name: 'the registry',
    async find(layer, { manifest, ...source }, options) {
      if (manifest === undefined) return undefined;
      const signal = AbortSignal.any([options.signal, AbortSignal.timeout(DEADLINE_MS)]);
      let listed = known.get(manifest);
      if (listed === undefined) {
        listed = listIndexes(client, source, manifest, { signal });
        known.set(manifest, listed);
        listed.catch(() => known.delete(manifest));
        const [oldest] = known.keys();
        if (known.size > KEPT && oldest !== undefined) known.delete(oldest);
      }
      const found = (await listed).find((index) => index.layer === layer);
      return found === undefined ? undefined : await fetchIndex(client, source, found, { signal });
    },
  };
}
