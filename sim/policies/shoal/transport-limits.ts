/**
 * Numbers of the daemon's transport that decide what the swarm does, which live beside its sockets where the simulator
 * may not look; a test holds them equal to those.
 */
export const DIRECTORY_LIMITS = {
  /** Providers kept of one chunk. */
  providersPerKey: 20,
  /** Peers asked beyond those that should have a record, and at most. */
  askedBeyond: 2,
  askedMax: 5,
  /** Coordinators asked before everything is granted. */
  coordinators: 2,
  /** New chunks are collected for this long before they are announced, ms. */
  announceDelayMs: 250,
  haveTimeoutMs: 2_000,
} as const;

/** Numbers of the chunk protocol between neighbours. */
export const DATA_LIMITS = {
  /** Longest `wait` a server grants, ms. */
  maxWaitMs: 20_000,
  /** Requests kept open, per neighbour and in all. */
  waitsPerPeer: 64,
  waits: 1_024,
} as const;
