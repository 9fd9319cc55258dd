import { withContext } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { DataPlane } from '../source/peer/data/data-plane.ts';
import { acceptedIndex } from './local-indexes.ts';
import type { IndexSource } from './plain-layers.ts';

/** Finding and fetching an index must not take longer than it saves. */
const DEADLINE_MS = 15_000;

/** Indexes that neighbours have. Only for operators who let every member of the swarm decide what is in a layer's files. */
export function createNeighbourIndexes(components: { plane: Pick<DataPlane, 'indexes'>; log: Logger }): IndexSource {
  const { plane, log } = components;
  return {
    name: 'a neighbour',
    async find(layer, _origin, options) {
      const signal = AbortSignal.any([options.signal, AbortSignal.timeout(DEADLINE_MS)]);
      for await (const bytes of plane.indexes(layer, { signal })) {
        try {
          acceptedIndex(layer, bytes);
          return bytes;
        } catch (error) {
          log.warn("a neighbour's index makes no sense", { layer, why: withContext(error, {}).describe() });
        }
      }
      return undefined;
    },
  };
}
