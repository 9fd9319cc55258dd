import type { Clock } from '../../../clock.ts';
import type { Chunk, ChunkRef } from '../../../core/chunk.ts';
import type { Hedging } from '../../../core/policy/hedging.ts';
import { type ChunkStore, within } from '../../../store/chunk-store.ts';
import { chunkMissing } from '../../../store/route.ts';
import { type Attempt, firstAnswer } from './first-answer.ts';

/**
 * `neighbours`, and beside them `outside` when somebody waits longer than outside would take: within a budget, so that
 * slow neighbours don't bring a crowd down on the registry. Throws CHUNK_MISSING when neither yields the chunk, so that
 * the claimed way outside is tried next.
 */
export function hedged(components: {
  neighbours: ChunkStore;
  outside: ChunkStore;
  hedging: Hedging;
  clock: Clock;
  /** How many chunks outside must fetch to yield this one. */
  chunksWith: (ref: ChunkRef) => number;
}): ChunkStore {
  const { neighbours, outside, hedging, clock, chunksWith } = components;
  return {
    has: (ref) => neighbours.has(ref),
    async get(ref, options) {
      // Nobody waits for it now; the neighbours' own deadlines are short enough for who may come.
      if (options.urgency === 'prefetch') return await neighbours.get(ref, options);
      options.signal.throwIfAborted();
      const startedMs = clock.nowMs();
      let started = 0;
      const next = async (hedge: boolean): Promise<Attempt<Chunk> | undefined> => {
        if (started === 0) {
          started = 1;
          return (signal) => neighbours.get(ref, within(options, signal));
        }
        if (!hedge || started > 1) return undefined;
        if (!hedging.takeOutside(ref.length, clock.nowMs() - startedMs, chunksWith(ref))) return undefined;
        started = 2;
        return (signal) => outside.get(ref, within(options, signal));
      };
      const hedgeAfterMs = (): number | undefined => (started > 1 ? undefined : hedging.outsideDelayMs(ref.length));
      const chunk = await firstAnswer({ signal: options.signal, next, hedgeAfterMs });
      if (chunk === undefined) throw chunkMissing(ref, 'no neighbour yielded it');
      return chunk;
    },
    async close() {
      await neighbours.close();
    },
  };
}
