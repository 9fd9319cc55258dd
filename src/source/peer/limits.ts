import { CLAIM_LIMITS } from '../../core/policy/claim-limits.ts';
import { ShoalError } from '../../errors.ts';
import { clientMemoryBytes, serverMemoryBytes } from './data/limits.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Bounds of the swarm's control plane: `/shoal/swarm/1.0.0` and the libp2p node under it. Reasons: docs/swarm.md. */
export const SWARM_LIMITS = {
  // frames
  /** Bytes of a frame after its length: a batch of 2,048 chunk keys is 64 KiB, a list of 2,000 peers 120 KiB. */
  frameBytes: 128 * KIB,
  /** Keys in one announcement: 2 to 4 ms of the receiver's time, so that nothing else waits longer. */
  keysPerBatch: 2_048,
  /** Chunks in one claim: what 1,024 chunks of 1 MiB cover is more than anybody fetches in one lease. */
  digestsPerClaim: 1_024,
  /** Rows of a have-map: 512 GiB of 1 MiB chunks; the bitmap fills half a frame. */
  rowsPerMap: 512 * KIB,
  /** Bytes of a zone label. */
  zoneBytes: 64,

  // streams and connections
  /** Streams of our protocol that one peer may open at a time: requests, announcements, and one that replaces another. */
  streamsPerPeer: 3,
  /** Streams of kad-dht that one peer may open at a time; a query opens one per message. */
  kadStreamsPerPeer: 8,
  /** Bytes one stream of kad-dht may carry: a message takes 4 KiB, and the library would buffer 4 MiB of one. */
  kadStreamBytes: 64 * KIB,
  /** Streams of any protocol that one peer may open within a connection: the above, identify and ping. */
  streamsPerConnection: 32,
  /** Bytes that may wait unread in one stream: the smallest window yamux has. */
  streamWindowBytes: 256 * KIB,
  /** Connections one host may open in a second; a node that restarts opens one. */
  connectionsPerSecond: 64,
  /** Connections whose handshake is under way. */
  pendingConnections: 64,
  /** Connections dialled at a time: a handshake takes some 20 ms of processor time. */
  dials: 8,
  dialTimeoutMs: 5_000,
  /** For the first frame on a connection; a peer that says nothing is not one of ours. */
  helloTimeoutMs: 5_000,
  /** Requests of one stream that may wait for their answer. */
  requestsPerStream: 64,
  /** Bad frames after which the connection goes, and how long the peer is refused then. */
  offences: 3,
  offenceBanMs: 60_000,

  // rates on receipt; beyond them a stream is read more slowly, which the sender notices
  /** Announcements and withdrawals of one peer in a second, batches of `keysPerBatch`. */
  batchesPerSecond: 10,
  /** Everything else of one peer in a second: find, have, claim. */
  requestsPerSecond: 2_000,

  // who and what is remembered
  /** Peers known; above that a node knows those closest to it. About 400 bytes each. */
  peers: 2_000,
  /** Providers kept of one chunk: nobody asks more. */
  providersPerKey: 20,
  /** Records kept of one peer: what it holds beyond is found by its have-maps only. */
  recordsPerPeer: 100_000,
  /** Records kept in all, at most 120 bytes each. */
  records: 1_000_000,
  recordBytes: 120,
  /** A record's life: a node that died is pointed at for that long at most. */
  recordLifeMs: 6 * 3_600_000,
  /** Everything held is announced again within this: two chances before a record ends. */
  reannounceMs: 3 * 3_600_000,
  /** Digests that wait to be announced or withdrawn, 32 bytes each; beyond, the next round takes them. */
  announceQueue: 1_000_000,

  // waiting
  /** New chunks are collected for this long. */
  announceDelayMs: 250,
  /** A batch that is not acknowledged by then counts as lost. */
  ackTimeoutMs: 10_000,
  /** Announcements to one peer that may wait for their acknowledgement. */
  batchesInFlight: 4,
  /** For one answer to find; within a cluster a round trip is below 1 ms, a busy event loop adds some 10. */
  findTimeoutMs: 500,
  /** For the walk when nobody among the closest answered. */
  walkTimeoutMs: 3_000,
  /**
   * For one answer to a claim, before the next closest is asked: that one knows nothing of the first, so two nodes are
   * told to fetch. Above the pauses of nodes whose processors are busy starting containers.
   */
  claimTimeoutMs: 1_500,
  haveTimeoutMs: 2_000,
  /** A peer is gone when so many questions in a row were not answered, and it said nothing for so long. */
  unansweredMax: 3,
  silenceMs: 5_000,
} as const;

/** Bytes one ledger entry and one ledger member take, rounded up. */
const LEDGER_BYTES = { chunk: 256, member: 80 };
/** libp2p's own objects of a connection, and what identify and ping may have unread. */
const CONNECTION_BYTES = 192 * KIB;
const PEER_BYTES = 512;

/** What the swarm may take at most, in bytes, chunks included, when every peer behaves as badly as the limits let it. */
export function worstCaseBytes(init: { connections: number; records: number }): number {
  const { streamsPerPeer, streamWindowBytes, frameBytes, kadStreamsPerPeer, kadStreamBytes } = SWARM_LIMITS;
  // A stream of ours keeps up to two windows unread, one frame in parts, and one answer.
  const perConnection =
    CONNECTION_BYTES + streamsPerPeer * 2 * (streamWindowBytes + frameBytes) + kadStreamsPerPeer * kadStreamBytes;
  const ledger = CLAIM_LIMITS.chunks * LEDGER_BYTES.chunk + CLAIM_LIMITS.members * LEDGER_BYTES.member;
  const own = SWARM_LIMITS.announceQueue * 32;
  return (
    init.connections * perConnection +
    init.records * SWARM_LIMITS.recordBytes +
    SWARM_LIMITS.peers * PEER_BYTES +
    ledger +
    own +
    serverMemoryBytes() +
    clientMemoryBytes()
  );
}

/** Throws CONFIG_INVALID when the worst case passes the budget. */
export function checkBudget(init: { connections: number; records: number; budgetBytes: number }): void {
  const worst = worstCaseBytes(init);
  if (worst <= init.budgetBytes) return;
  const mib = (bytes: number): string => `${Math.ceil(bytes / MIB)} MiB`;
  throw new ShoalError(
    'CONFIG_INVALID',
    `swarm: ${init.connections} connections, ${init.records} records and the chunks under way may take ${mib(worst)}, more than ` +
      `swarm.memory_bytes_max (${mib(init.budgetBytes)}); lower swarm.connections_max or swarm.records_max, or raise the budget`,
  );
}
