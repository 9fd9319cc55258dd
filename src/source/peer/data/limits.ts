import { MAX_CHUNK_BYTES } from '../../../core/chunk.ts';
import { UPLOAD_LIMITS } from '../../../core/policy/upload-limits.ts';

/** Every bound of the chunk protocol between neighbours, in one place: unit in the name, reason beside it. */
export const DATA_LIMITS = {
  /** Bytes of progress … */
  progressBytes: 64 * 1024,
  /** … that a transfer must make in this time, ms (F12); also the longest silence before the first byte. */
  progressMs: 2_000,
  /** A server that keeps a request open says so this often, ms: two can be late before the client gives up. */
  stillWaitingMs: 600,
  /** Longest `wait` a server grants, ms. */
  maxWaitMs: 20_000,
  /** Requests kept open, per neighbour and in all: one region of small files, and a flash crowd of it. */
  waitsPerPeer: 64,
  waits: 1_024,

  /** Connections a server keeps: 128 neighbours with a few each. About 60 KiB each. */
  connections: 512,
  /** … of one neighbour: its `clientRequests` and `clientWaits`, and as many again while old ones end. */
  connectionsPerPeer: 64,
  /** Handshakes under way: each costs a signature and 30 KiB; more are refused unread (L6). */
  handshakes: 64,
  /** A handshake that takes longer is a scan, ms. */
  handshakeMs: 3_000,
  /** Request line and headers: ours take 250 bytes. */
  maxHeaderBytes: 4 * 1024,
  maxHeaders: 16,
  /** The path: the longest is `/chunk/sha512/<128 digits>?wait=…&prefetch`. */
  maxPathLength: 192,
  /** Idle connections end, ms: the client's keep-alive is shorter, so that it never writes to one that is closing. */
  serverKeepAliveMs: 60_000,
  clientKeepAliveMs: 45_000,
  /** Encrypted in one go, bytes: 0.2 ms, so that containers and containerd do not wait for whole chunks of 1 ms each. */
  sentAtOnceBytes: 256 * 1024,
  /** Slowest transfer a server bears with, bytes per ms: progressBytes per progressMs. */
  minBytesPerMs: 32,

  /** Requests under way at one neighbour for chunks it has: a LAN is full with these, and each costs a handshake. */
  clientRequests: 4,
  /** Requests under way at one neighbour that may be kept open: on connections of their own, as they may take seconds. */
  clientWaits: 8,
  /** … of either kind, these are for reads that somebody waits for. */
  clientForDemand: 2,
  /** Neighbours with a pool of connections; the one unused for longest goes. */
  clientPools: 64,
  /** Time to connect, TLS included, ms: a LAN, and a neighbour whose processors are busy. */
  connectMs: 5_000,
  /** Longest wait for a connection to be there, ms: the pool gives up before. */
  turnMs: 8_000,
  /** Bytes of chunks under way from all neighbours; a quarter is for demand. */
  clientInFlightBytes: 256 * 1024 * 1024,
  /** Answers larger than this are refused whatever they say. */
  maxChunkBytes: MAX_CHUNK_BYTES,

  /** Disk for manifests, configs and layer indexes that neighbours can have from here: those of some 50 images. */
  documentsBytes: 256 * 1024 * 1024,
  /** A larger index comes from the registry. */
  maxDocumentBytes: MAX_CHUNK_BYTES,
  /** Time to find out who has a document, ms; nobody having it must not hold up a pull. */
  documentFindMs: 1_000,
  /** Longest wait for a neighbour that is fetching it, ms: containerd gives a layer 20 s. */
  documentWaitMs: 4_000,
  /** Neighbours asked for one document. */
  documentPeers: 3,
} as const;

/** Bytes the server may hold at worst: answers twice (plain, and encrypted on their way out), and connections. */
export function serverMemoryBytes(): number {
  const answers = 2 * Math.max(UPLOAD_LIMITS.inFlightBytes, MAX_CHUNK_BYTES);
  const connections = DATA_LIMITS.connections * 60 * 1024 + DATA_LIMITS.handshakes * 30 * 1024;
  const kept = 32 * 1024 * 1024;
  const queued = (UPLOAD_LIMITS.queued + DATA_LIMITS.waits) * 4 * 1024;
  return answers + connections + kept + queued;
}

/** Bytes the client may hold at worst: chunks under way, and connections. */
export function clientMemoryBytes(): number {
  const connections = DATA_LIMITS.clientPools * (DATA_LIMITS.clientRequests + DATA_LIMITS.clientWaits) * 60 * 1024;
  return DATA_LIMITS.clientInFlightBytes + connections;
}
