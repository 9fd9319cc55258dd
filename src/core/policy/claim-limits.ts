/** Constants of the claim ledger (see claim-ledger.ts); the worst case they add up to is about 60 MiB, reached by no honest swarm. */
export const CLAIM_LIMITS = {
  /** How long others are pointed at a node that fetches from outside: 4 MiB at 1 MB/s and a few retries. */
  leaseMs: 10_000,
  /** A node that claims again what it is fetching keeps the lease, but no longer than this from the first grant. */
  leaseLongestMs: 60_000,
  /** A chunk nobody claims or settles is forgotten: announcements are in place long before. */
  retainMs: 120_000,
  /** Nodes that are pointed at one holder first: its uplink is shared by these, and a tree of 4 is 5 deep for 1,000. */
  fanout: 4,
  /** Holders in one answer: the first and two for when it is gone. */
  holders: 3,
  /** Chunks remembered; the one touched longest ago leaves. About 250 bytes each. */
  chunks: 100_000,
  /** Claimers remembered per chunk; later ones are pointed at these and are leaves. */
  membersPerChunk: 256,
  /** Claimers remembered over all chunks, about 50 bytes each. */
  members: 500_000,
  /** Chunks one node may be fetching by our leave; what it claims beyond is granted and not remembered. */
  leasesPerPeer: 20_000,
} as const;
