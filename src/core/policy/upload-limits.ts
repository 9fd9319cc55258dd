/** Every number of serving chunks to neighbours: unit in the name, reason beside it. */
export const UPLOAD_LIMITS = {
  /** Answers under way: covers a fast link with 1 MiB chunks; more only share it. */
  slots: 16,
  /** Slots that prefetch leaves alone, so that a read somebody waits for starts at once. */
  demandSlots: 4,
  /** Bytes of answers under way (one that is larger goes alone). */
  inFlightBytes: 64 * 1024 * 1024,
  /** Requests that wait, of one neighbour and in all: beyond, it should ask another. */
  queuedPerPeer: 64,
  queued: 1_024,
  /**
   * Uploads under way and waiting beyond which a request that no claim directed here is refused: in a crowd everybody
   * finds the same first holder, and its uplink would be the wall (docs/studies/flash-crowd.md). Who is refused claims,
   * and is directed to one of many.
   */
  undirected: 8,
  /** What such a one is told to stay away, ms: as long as these uploads take on a fast link. */
  undirectedRetryMs: 100,
  /** A request waits at most about this long for bandwidth, ms; beyond, it is refused at once. */
  maxQueueMs: 2_000,
  /** What a refused neighbour is told to stay away, ms. */
  retryAfterMs: 1_000,
  /** Bandwidth that may be saved up, ms worth of it: smooths, and keeps a budget exact within 5 % over seconds. */
  burstMs: 100,
} as const;
