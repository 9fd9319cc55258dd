import type { Digest } from '../core/digest.ts';
import { withContext } from '../errors.ts';
import { parseDiffIds } from '../image/image-config.ts';
import type { Logger } from '../log.ts';
import type { RegistryClient } from '../source/origin/registry-client.ts';
import type { ManifestLookup } from './manifests.ts';
import type { LayerOrigin } from './plain-layers.ts';

/** Digests of layers uncompressed, as the configs of their images have them: what containerd holds against what it unpacks. */
export interface DiffIds {
  /** Undefined when the image, or its config, cannot be had. Rejects with the signal's reason only. */
  of(layer: Digest, origin: LayerOrigin, options: { signal: AbortSignal }): Promise<Digest | undefined>;
}

/** Images whose list is remembered: those pulled at the same time. */
const KEPT = 64;
/** Longest a layer that has been read waits to be told what it should have been. */
const DEADLINE_MS = 10_000;

export function createDiffIds(components: {
  manifests: ManifestLookup;
  client: Pick<RegistryClient, 'config'>;
  log: Logger;
}): DiffIds {
  const { manifests, client, log } = components;
  const known = new Map<Digest, Promise<ReadonlyMap<Digest, Digest | undefined>>>();

  async function fetchList(origin: LayerOrigin, manifest: Digest, signal: AbortSignal) {
    const { config, layers } = await manifests.manifest(origin, manifest, { signal });
    const listed = parseDiffIds(await client.config(origin, config, { signal }));
    return new Map(layers.map(({ digest }, at) => [digest, listed[at]]));
  }

  return {
    async of(layer, origin, options) {
      const { manifest } = origin;
      if (manifest === undefined) return undefined;
      const signal = AbortSignal.any([options.signal, AbortSignal.timeout(DEADLINE_MS)]);
      let list = known.get(manifest);
      if (list === undefined) {
        list = fetchList(origin, manifest, signal);
        known.set(manifest, list);
        list.catch(() => known.delete(manifest));
        const [oldest] = known.keys();
        if (known.size > KEPT && oldest !== undefined) known.delete(oldest);
      }
      try {
        return (await list).get(layer);
      } catch (error) {
        options.signal.throwIfAborted();
        log.debug('the DiffID of a layer is not known', { layer, why: withContext(error, {}).describe() });
        return undefined;
      }
    },
  };
}
