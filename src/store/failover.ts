import type { Clock } from '../clock.ts';
import { backoffMs } from '../core/policy/backoff.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { ChunkStore } from './chunk-store.ts';

/** One of several stores that can all yield a chunk. */
export interface FailoverStore {
  /** As an operator knows it: a mirror's host, `origin`. */
  readonly name: string;
  readonly store: ChunkStore;
}

interface Health {
  failures: number;
  /** Clock time before which the store is only asked when all the others failed. */
  resumeAtMs: number;
}

/** First rest after a failure, ms: long enough not to add a timeout to each chunk, short enough to notice a restart. */
const FIRST_REST_MS = 1_000;
/** Longest rest, ms: a mirror is used again at most this long after it recovered (F13). */
const LONGEST_REST_MS = 30_000;

/**
 * Asks the next store when one *fails*; CHUNK_MISSING is an answer and goes to the caller. A store that failed rests,
 * each time twice as long (or as long as it said, `retryAfterMs`), and is asked again afterwards; when nothing else is
 * left even a resting one is asked. Throws the last store's error.
 */
export function failover(
  components: { clock: Clock; log: Logger },
  init: { stores: readonly FailoverStore[]; firstRestMs?: number; longestRestMs?: number },
): ChunkStore {
  const { clock, log } = components;
  const { stores, firstRestMs = FIRST_REST_MS, longestRestMs = LONGEST_REST_MS } = init;
  const health = new Map<FailoverStore, Health>(stores.map((each) => [each, { failures: 0, resumeAtMs: -Infinity }]));
  const healthOf = (each: FailoverStore): Health => health.get(each) as Health;

  function inOrder(): FailoverStore[] {
    const now = clock.nowMs();
    const resting = stores.filter((each) => healthOf(each).resumeAtMs > now);
    if (resting.length === 0) return [...stores];
    return [...stores.filter((each) => healthOf(each).resumeAtMs <= now), ...resting];
  }

  function failed(each: FailoverStore, error: unknown): void {
    const state = healthOf(each);
    const now = clock.nowMs();
    // Reads that began before the rest say nothing new.
    if (state.resumeAtMs > now) return;
    state.failures += 1;
    const said = error instanceof ShoalError ? error.context.retryAfterMs : undefined;
    const restMs = said ?? backoffMs(state.failures, { firstMs: firstRestMs, longestMs: longestRestMs });
    state.resumeAtMs = now + restMs;
    log.warn('source failed, using the next', { source: each.name, restMs, error: String(error) });
  }

  return {
    async has(ref) {
      for (const each of inOrder()) if (await each.store.has(ref)) return true;
      return false;
    },
    async get(ref, options) {
      let last: unknown = new ShoalError('SOURCE_FAILED', 'no source is configured');
      for (const each of inOrder()) {
        options.signal.throwIfAborted();
        try {
          const chunk = await each.store.get(ref, options);
          healthOf(each).failures = 0;
          healthOf(each).resumeAtMs = -Infinity;
          return chunk;
        } catch (error) {
          if (options.signal.aborted || hasCode(error, 'CHUNK_MISSING')) throw error;
          failed(each, error);
          last = error;
        }
      }
      throw last;
    },
    async close() {
      for (const each of stores) await each.store.close();
    },
  };
}
