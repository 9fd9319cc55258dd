/**
 * What work costs a node's processors, in one place. Measured on one machine (2 cores, Linux 6.18, Node 24), single
 * figures drift from machine to machine; docs/simulation.md says where each was measured.
 */
export const COST = {
  /** sha256 of 1 MiB buffers, one core: 1,730 MB/s (`crypto.hash`). */
  hashMsPerByte: 1 / 1_730_000,
  /** TLS 1.3 over HTTPS, 1 MiB in flight: 1.5 CPU-s per GB for both ends together; half of it at each. */
  tlsMsPerByte: 0.75 / 1_000_000,
  /** gunzip with a known output size, per byte that comes out: 402 MB/s. */
  inflateMsPerByte: 1 / 402_000,
  /** A request or message on a warm connection: 4,160 pipelined a second for both ends together; half at each. */
  messageMs: 0.12,
  /** An HTTPS chunk request on a warm connection, beside its bytes: 7,251 a second of 4 KiB, both ends; half at each. */
  requestMs: 0.07,
  /** A key in an acknowledged batch announcement: 0.2 µs to send, 1.1 µs to receive. */
  announceSendMs: 0.000_2,
  announceReceiveMs: 0.001_1,
  /** A whole layer is written to disk while it is unpacked, per byte: Spegel's runs were bound by 233 MB/s of disk. */
  unpackDiskMsPerByte: 1 / 233_000,
} as const;

/** What one piece of a daemon's work costs beside its bytes, ms of one processor. */
export interface WorkCost {
  /** A message, at each end. */
  readonly messageMs: number;
  /** A chunk that is given to a neighbour. */
  readonly serveMs: number;
  /** A chunk that is taken in, from wherever: trap, search, store, answer. */
  readonly readMs: number;
}

/** A daemon that has worked for a while. What is not here was too small to be measured beside the rest. */
export const WARM: WorkCost = { messageMs: COST.messageMs, serveMs: COST.requestMs, readMs: 0 };

/**
 * One that began a moment ago, its code not compiled, its connections not made: what an operation costs that comes by
 * itself, as measured over the first hundreds (`npm run bench -- fresh-daemon`).
 */
export const FRESH: WorkCost = { messageMs: 0.79, serveMs: 0.95, readMs: 1.96 };

/** Bytes of control messages on the wire: headers, framing and encryption included, rounded. */
export const MESSAGE_BYTES = {
  /** HTTP request and response head of a chunk. */
  request: 500,
  /** A claim for the chunks of one region, without its digests. */
  claim: 200,
  /** Each digest or peer named in a message. */
  perKey: 40,
  /** A have-map question, and its answer without the bits. */
  have: 150,
  /** A question for the providers of one key. */
  find: 150,
  /** A batch of announced keys, without the keys. */
  announce: 100,
  /** A question to a central scheduler, and its answer. */
  schedule: 600,
} as const;
