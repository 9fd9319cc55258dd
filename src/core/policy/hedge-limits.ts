/** Every number that decides when a second source is asked as well: unit in the name, reason beside it. */
export const HEDGE_LIMITS = {
  /** Reads per source and size class that are remembered: a p95 needs some tens, and old ones mislead. */
  window: 64,
  /** Fewer observations than this say nothing. */
  minSamples: 8,
  /** Part of the reads that is faster than the hedge delay: one in twenty may ask twice. */
  quantile: 0.95,
  /** A neighbour is given at least this long, ms: below, the second request is as slow as the first. */
  neighbourMinMs: 20,
  /** … and at most this long (F10: a peer that falls silent costs one delay + 500 ms). */
  neighbourMaxMs: 500,
  /** Delay while nothing is known of neighbours, ms. */
  neighbourUnknownMs: 150,
  /** A node that fetches from outside for others is given this many times what our own outside reads take at p95. */
  holderFactor: 2,
  /** … at least and at most, ms: a registry's slow answer must not make a whole swarm ask it again. */
  holderMinMs: 500,
  holderMaxMs: 8_000,
  /** … and while nothing is known. */
  holderUnknownMs: 3_000,
  /** Outside is asked this much later than a second neighbour would be, ms. */
  outsideAfterMs: 100,
  /**
   * Bytes of second reads from outside per byte read, of all nodes together: when N nodes read the same image, what hedges
   * add to the registry's load stays below 3 % of the image. Bytes, not reads: it is the large chunks that are waited for.
   */
  outsidePerByte: 0.03,
  /** Saved up by one node at most, bytes: a burst after a quiet time. */
  outsideBurstBytes: 4 * 1024 * 1024,
  /** There from the start, for all nodes together, bytes. */
  outsideFirstBytes: 512 * 1024,
  /** While nothing is known of the outside, it is assumed to take this long, ms. */
  outsideUnknownMs: 1_000,
} as const;
