/** Every number of the claiming and waiting side of claims: unit in the name, reason beside it. */
export const CLAIM_WAIT_LIMITS = {
  /** Device bytes per region: what one ranged request fetches, so that one node fetches what travels together. */
  regionBytes: 4 * 1024 * 1024,
  /** How long the claims of one region gather, ms: rows of one read come from lookups that end at slightly different times. */
  gatherMs: 2,
  /** Chunks in one message: 512 × 32 bytes. */
  maxBatch: 512,
  /** How long coordinators may take in all, ms; then the chunk is fetched without a claim. */
  answerMs: 3_500,
  /**
   * Longest wait for nodes that fetch the chunk, ms: what is left of a fault's deadline (30 s) is for going outside. Who
   * shows no sign of life for 2 s is not waited for; who is slow is so because the registry is, and asking that again makes
   * it slower: with 8 s, eight nodes that read 64 MiB over 20 Mbit/s took 1.5 times the image.
   */
  waitMs: 20_000,
  /** … as a part of the deadline, where that is shorter. */
  waitPerDeadline: 2 / 3,
  /** The same for reads nobody waits for, ms: a slow registry must not make every node fetch a layer by itself. */
  prefetchWaitMs: 60_000,
  /** Time for nodes that have the chunk but were too busy, or known too late, before the one that may fetch it does, ms. */
  knownMs: 2_000,
  /** How often a read that waits looks whether somebody waits for it by now, ms: thousands of rows may wait. */
  lookAgainMs: 500,
  /** Pauses before the claim is made again when no holder had it, ms: the first covers a holder that is a moment behind. */
  againMs: [25, 100, 250, 500, 1_000],
  /** Part of a lease after which it is claimed again while the fetch goes on. */
  renewFraction: 0.5,
  /** Rows of one extent that are completed when it is fetched: 4,096 of 4 KiB are 16 MiB. */
  maxSiblings: 4_096,
} as const;
