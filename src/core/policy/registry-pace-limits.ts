/** Constants of `registry-pace.ts`: times in milliseconds. */
export const PACE_LIMITS = {
  /** Failures in a row, over all readers, that make a registry count as away: one may be a single connection's bad luck. */
  failuresBeforeRest: 3,
  /** Rests of a registry that is away: short, since one request then probes for all. */
  awayRest: { firstMs: 100, longestMs: 1_000 },
  /** Rests of a registry that says it has too much to do, when it does not say for how long. */
  throttledRest: { firstMs: 1_000, longestMs: 30_000 },
  /** The longest rest a registry may ask for; then one request finds out whether it still means it. */
  longestAskedMs: 5 * 60_000,
  /** Rests are longer by up to this part, at random, so that nodes do not come back together. */
  spread: 0.25,
  /** Part of the requests at a time that may be prefetch. */
  prefetchShare: 0.5,
  /**
   * How long a request goes on trying at the least, however long the registry has been away: past the longest rest, so that
   * it asks once more itself, and one bad answer of a registry that just came back is not the end of a read.
   */
  leastPatienceMs: 1_500,
  /** A failure says nothing any more after this long without another request. */
  evidenceMs: 5_000,
} as const;
