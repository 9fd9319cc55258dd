import { HEDGE_LIMITS } from './hedge-limits.ts';
import { createLatencyWindow } from './latency-window.ts';

/** Kinds of source whose latency is watched. */
export type HedgedKind = 'neighbour' | 'outside';

/** When to ask a second source as well, and whether outside may be it. Pure. */
export interface Hedging {
  /** A read ended: each also earns a little of the budget for second reads from outside. */
  note(kind: HedgedKind, bytes: number, ms: number): void;
  /** How long a neighbour that should have the chunk is given, ms. */
  neighbourDelayMs(bytes: number): number;
  /** How long a neighbour that is fetching the chunk from outside is given, ms. */
  holderDelayMs(bytes: number): number;
  /** How long neighbours are given before outside is asked as well, ms: another neighbour comes first. */
  outsideDelayMs(bytes: number): number;
  /**
   * True when a second read from outside may start for a chunk that is waited for since `waitedMs`: outside would have
   * been faster, as far as is known, and the budget has enough left, which is taken. `chunks`: how many are fetched with
   * it, because they share its extent; about as long as this one.
   */
  takeOutside(bytes: number, waitedMs: number, chunks: number): boolean;
}

/** A hedging policy that knows nothing yet. `sharers`: nodes of the swarm, this one included, which share the budget. */
export function createHedging({ sharers }: { sharers: () => number }): Hedging {
  const windows = { neighbour: createLatencyWindow(), outside: createLatencyWindow() };
  const { quantile, outsideBurstBytes, outsidePerByte } = HEDGE_LIMITS;
  let budget = 0;
  let first: number | undefined;
  return {
    note(kind, bytes, ms) {
      windows[kind].note(bytes, ms);
      budget = Math.min(outsideBurstBytes, budget + (outsidePerByte * bytes) / Math.max(1, sharers()));
    },
    neighbourDelayMs(bytes) {
      const usual = windows.neighbour.quantile(bytes, quantile) ?? HEDGE_LIMITS.neighbourUnknownMs;
      return between(usual, HEDGE_LIMITS.neighbourMinMs, HEDGE_LIMITS.neighbourMaxMs);
    },
    outsideDelayMs(bytes) {
      const usual = windows.outside.quantile(bytes, 0.5) ?? HEDGE_LIMITS.outsideUnknownMs;
      return Math.max(usual, this.neighbourDelayMs(bytes) + HEDGE_LIMITS.outsideAfterMs);
    },
    holderDelayMs(bytes) {
      const usual = windows.outside.quantile(bytes, quantile);
      if (usual === undefined) return HEDGE_LIMITS.holderUnknownMs;
      return between(HEDGE_LIMITS.holderFactor * usual, HEDGE_LIMITS.holderMinMs, HEDGE_LIMITS.holderMaxMs);
    },
    takeOutside(bytes, waitedMs, chunks) {
      // Not before the swarm is known: a crowd shares this as well.
      if (first === undefined) {
        first = HEDGE_LIMITS.outsideFirstBytes / Math.max(1, sharers());
        budget += first;
      }
      const usual = windows.outside.quantile(bytes, 0.5) ?? HEDGE_LIMITS.outsideUnknownMs;
      if (usual > waitedMs || budget < bytes * chunks) return false;
      budget -= bytes * chunks;
      return true;
    },
  };
}

function between(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
