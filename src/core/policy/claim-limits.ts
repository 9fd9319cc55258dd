/** Every number of the waiting side of claims: unit in the name, reason beside it. */
export const CLAIM_LIMITS = {
  /** Device bytes per region: what one ranged request fetches, so that one node fetches what travels together. */
  regionBytes: 4 * 1024 * 1024,
  /** How long the claims of one region gather, ms: rows of one read come from lookups that end at slightly different times. */
  gatherMs: 2,
  /** Chunks in one message: 512 × 32 bytes. */
  maxBatch: 512,
  /** How long coordinators may take in all, ms; then the chunk is fetched without a claim. */
  answerMs: 1_000,
  /** Longest wait for a node that fetches the chunk, ms: a third of a fault's deadline and of a lease of 30 s. */
  waitMs: 10_000,
  /** Pauses before the claim is made again when no holder had it, ms: the first covers a holder that is a moment behind. */
  againMs: [25, 100, 250, 500, 1_000],
  /** Most nodes asked of one answer. */
  maxHolders: 4,
  /** Rows of one extent that are completed when it is fetched: what shares a compressed extent is fetched by one node. */
  maxSiblings: 4_096,
} as const;
