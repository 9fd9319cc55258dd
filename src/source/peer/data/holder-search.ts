import type { Clock } from '../../../clock.ts';
import type { ChunkRef } from '../../../core/chunk.ts';
import type { ExpiringSet } from '../../../core/policy/expiring-set.ts';
import { SESSION_LIMITS } from '../../../core/policy/neighbour-limits.ts';
import type { NeighbourScores } from '../../../core/policy/neighbour-score.ts';
import type { GetOptions } from '../../../store/chunk-store.ts';
import type { Neighbour, PeerDirectory } from '../directory.ts';
import type { BlobSession } from './blob-session.ts';

/** Names neighbours that should have one chunk, best first, each once. */
export interface HolderSearch {
  /** The next to ask; undefined when nobody else is known. One call at a time. */
  search(): Promise<Neighbour | undefined>;
  /** Ends what is under way. */
  stop(): void;
}

/** Bitmaps first, then the directory. `row`: of the session's table; undefined when the chunk is not in it. */
export function createHolderSearch(
  components: {
    directory: PeerDirectory;
    session: BlobSession;
    nobody: ExpiringSet;
    scores: NeighbourScores;
    clock: Clock;
  },
  init: { ref: ChunkRef; row: number | undefined; options: Pick<GetOptions, 'signal' | 'urgency'> },
): HolderSearch {
  const { directory, session, nobody, scores, clock } = components;
  const { ref, row, options } = init;
  const tried = new Set<string>();
  let over: AbortController | undefined;
  let found: AsyncIterator<Neighbour> | undefined;
  let anyFound = false;
  let finished = false;
  let stopped = false;
  let deadline: NodeJS.Timeout | undefined;

  function byBitmap(): Neighbour | undefined {
    if (row === undefined) return undefined;
    const holders = session.holders(row).filter(({ id }) => !tried.has(id));
    return scores.choose(holders, ref.length, clock.nowMs());
  }

  function begin(): AsyncIterator<Neighbour> | undefined {
    if (nobody.has(ref.digest, clock.nowMs()) || !session.worthFinding()) return undefined;
    const { findDemandMs, findPrefetchMs } = SESSION_LIMITS;
    const ending = new AbortController();
    over = ending;
    deadline = setTimeout(() => ending.abort(), options.urgency === 'prefetch' ? findPrefetchMs : findDemandMs);
    return directory.find(ref.digest, { signal: ending.signal })[Symbol.asyncIterator]();
  }

  async function byDirectory(): Promise<Neighbour | undefined> {
    if (finished) return undefined;
    found ??= begin();
    if (found === undefined) {
      finished = true;
      return undefined;
    }
    try {
      for (let each = await found.next(); each.done !== true; each = await found.next()) {
        anyFound = true;
        session.add(each.value);
        const usable = each.value.dataPort > 0 && scores.usable(each.value.id, clock.nowMs());
        if (usable && !tried.has(each.value.id)) return each.value;
      }
    } catch {
      // The deadline, most likely: who answered so far was asked.
    }
    finished = true;
    if (!stopped && !options.signal.aborted) {
      session.foundAny(anyFound);
      if (!anyFound) nobody.add(ref.digest, clock.nowMs());
    }
    return undefined;
  }

  return {
    async search() {
      let next = byBitmap();
      if (next === undefined && row !== undefined) {
        await session.settled(row, options.signal);
        next = byBitmap();
        if (next === undefined) session.refresh();
      }
      next ??= await byDirectory();
      if (next !== undefined) tried.add(next.id);
      return next;
    },
    stop() {
      stopped = true;
      clearTimeout(deadline);
      if (found === undefined) return;
      if (!finished) over?.abort();
      void found?.return?.(undefined)?.catch(() => {});
    },
  };
}
