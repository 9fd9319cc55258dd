/** Constants of the claim ledger (see claim-ledger.ts); the worst case they add up to is about 60 MiB, reached by no honest swarm. */
export const CLAIM_LIMITS = {
  /** How long others are pointed at a node that fetches from outside: 4 MiB at 1 MB/s and a few retries. */
  leaseMs: 10_000,
  /** A node that claims again what it is fetching keeps the lease, but no longer than this from the first grant. */
  leaseLongestMs: 60_000,
  /** A chunk nobody claims or settles is forgotten: announcements are in place long before. */
  retainMs: 120_000,
  /** Nodes that are pointed at one holder of a chunk first: its uplink is shared by these, and a tree of 4 is 5 deep for 1,000. */
  fanout: 4,
  /**
   * … of all chunks together, in shares (`claimShare`): two and a half nodes for each chunk of a region. What one holder
   * has to send it then sends while others send the rest. Of 300 nodes, 8 to 12 did as well, 4 and 16 worse
   * (docs/studies/flash-crowd.md).
   */
  peerLoad: 10,
  /** Holders in one answer: the first and two for when it is gone. */
  holders: 3,
  /**
   * Claimers looked at for one claim, others with the next; fewer when enough hold the chunk and have no more than this to
   * send, in shares. The best of so many starts 1,000 nodes as fast as the best of all, for a third less processor time of
   * the simulation. With 32, p99 was a tenth later.
   */
  looks: 128,
  littleLoad: 2,
  /** Chunks remembered; the one touched longest ago leaves. About 600 bytes each, with one or two claimers. */
  chunks: 100_000,
  /**
   * Claimers remembered per chunk, and when half of all are used up; later ones are pointed at these and are leaves. With
   * 256, the first 256 of 10,000 nodes sent everything to everybody.
   */
  membersPerChunk: 2_048,
  membersPerChunkFull: 256,
  /** Claimers remembered over all chunks, about 35 bytes each. */
  members: 500_000,
  /** Chunks one node may be fetching by our leave; what it claims beyond is granted and not remembered. */
  leasesPerPeer: 20_000,
} as const;

/** Chunks of a claim that count fully: a region of 4 MiB has four of 1 MiB. */
const FULL_SHARES = 4;
/** Shares are multiples of it, so that they add up and cancel exactly. */
export const SHARE_STEP = 1 / 256;

/** What each of so many chunks of one claim counts against who is to send it: small ones are asked for together. */
export function claimShare(chunks: number): number {
  return Math.max(1, Math.floor(Math.min(1, FULL_SHARES / chunks) / SHARE_STEP)) * SHARE_STEP;
}
