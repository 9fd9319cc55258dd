import type { Digest } from '../../core/digest.ts';

/** A node of the swarm as its data plane is reached: facts from its authenticated Hello. */
export interface Neighbour {
  /** libp2p peer id. */
  readonly id: string;
  /** IP address of the authenticated connection. */
  readonly address: string;
  /** TCP port of its chunk server; 0 when it serves none. */
  readonly dataPort: number;
  /** SHA-256 of its TLS certificate (DER), lower-case hex: both sides pin it. */
  readonly fingerprint: string;
  /** Zone label as configured there; empty when none. */
  readonly zone: string;
}

/** Which rows of a blob's chunk table a neighbour holds: one bit per row, little-endian bit order within each byte. */
export interface HaveMap {
  readonly rows: number;
  readonly bits: Uint8Array;
}

/**
 * What the coordinator of a claim said of one chunk. `granted`: fetch it from outside, others are pointed at you until
 * the lease ends. `ask`: these nodes have it, or are getting it right now; ask them in this order, with a wait.
 */
export type ClaimAnswer =
  | { readonly kind: 'granted'; readonly leaseMs: number }
  | { readonly kind: 'ask'; readonly holders: readonly Neighbour[] };

/** A chunk to claim: `region` groups chunks of one blob that go to the same coordinator, so that one message asks for many. */
export interface ClaimRequest {
  readonly blob: Digest;
  readonly region: number;
  readonly digests: readonly Digest[];
}

/**
 * Who has what in the swarm (design §7). Every answer is a hint: it may be late, missing or a lie, and costs time only.
 * No method throws but for its signal; without peers they answer at once.
 */
export interface PeerDirectory {
  /** This node. */
  readonly self: Neighbour;
  /** Neighbours with a live connection and a verified Hello. */
  peers(): readonly Neighbour[];
  /** Yields neighbours that announced the chunk, as answers arrive; never this node, never a banned one. */
  find(digest: Digest, options: { signal: AbortSignal }): AsyncIterable<Neighbour>;
  /** Which chunks of the blob a neighbour holds, by row of the blob's table; undefined when it does not know the blob. */
  haveMap(neighbour: Neighbour, blob: Digest, options: { signal: AbortSignal }): Promise<HaveMap | undefined>;
  /** One answer per digest, in order. When no coordinator answers in time every digest is granted. */
  claim(request: ClaimRequest, options: { signal: AbortSignal }): Promise<readonly ClaimAnswer[]>;
  /**
   * Ends a lease this node was granted: `held` tells that it now has the chunk, else somebody else may fetch it. Who was
   * told to ask others says so as well: then it counts as a holder, and its place at the one it asked is free.
   */
  settle(request: ClaimRequest, outcome: 'held' | 'failed'): void;
  /** Chunks this node now holds, verified and on disk; batched, announced within 2 s. */
  announce(digests: readonly Digest[]): void;
  /** Chunks this node does not hold any more. */
  withdraw(digests: readonly Digest[]): void;
  /** The neighbour that presents this TLS certificate; undefined: refuse the connection. */
  byFingerprint(fingerprint: string): Neighbour | undefined;
  /** Disconnects a neighbour that sent wrong bytes and refuses it for `forMs`. */
  ban(id: string, options: { reason: string; forMs: number }): void;
}

/** What the peer node asks of this node's store to answer others. */
export interface HeldChunks {
  /** Rows of the blob's table that are held, verified and durable; undefined when the blob is not known or not shared. */
  haveMap(blob: Digest): HaveMap | undefined;
  /** Every chunk that may be announced, for the periodic re-announcement; batches of any size. */
  all(): AsyncIterable<readonly Digest[]>;
}
