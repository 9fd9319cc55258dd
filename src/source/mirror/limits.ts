/** Every bound of mirrors, in one place: unit in the name, reason beside it. */
export const MIRROR_LIMITS = {
  /** A hosts.toml; real ones have a few hundred bytes. */
  maxFileBytes: 256 * 1024,
  /** A certificate or key file. */
  maxCertificateBytes: 1024 * 1024,
  /** Hosts of one file: a read that fails everywhere would ask them all. */
  maxHosts: 32,
  maxHeaders: 32,
  maxHeaderBytes: 4 * 1024,
  /** Warnings kept of one file. */
  maxWarnings: 20,
  /** Registries whose files are remembered. */
  maxRegistries: 256,
  /** A file is looked at again after this time: a change is in effect within a second. */
  freshMs: 500,
  /** A mirror is in the same cluster, most often on the same node: who does not accept by then is down. */
  dialTimeoutMs: 1_000,
  /** Longest dial_timeout a file may ask for; containerd's own default. */
  maxDialTimeoutMs: 30_000,
  /** What all mirrors together may cost a read somebody waits for; 2 s are left for the origin (F13: 6 s). */
  demandBudgetMs: 4_000,
  /** The same for a read nobody waits for. */
  prefetchBudgetMs: 30_000,
  /** Connections per mirror and urgency. */
  connections: 16,
  /** Dragonfly cuts blobs into pieces of this size at least, and of its multiples: no request straddles one more. */
  pieceBytes: 4 * 1024 * 1024,
  /** Pieces kept of one Dragonfly client for the reads that follow: each reader is in one piece. */
  keptPieces: 8,
  /** And for how long after the last of them was asked for. */
  keptPiecesMs: 10_000,
  /** Requests of one mirror to hold in memory at once, with what they decode to. */
  inFlightBytes: 64 * 1024 * 1024,
  keptExtentBytes: 8 * 1024 * 1024,
  /** A mirror that does not have or give something is not asked for it again for this time. */
  declineMs: 30_000,
  /** The same when it lacked a token that it may have as soon as there is one. */
  tokenDeclineMs: 1_000,
  maxDeclines: 4_096,
  /** Bypass after a 429 that names no time. */
  throttleMs: 5_000,
  /** One health check in all (nydus: 3 s). */
  pingTimeoutMs: 3_000,
  /** Requests under way when a mirror is taken from a file have ended by then. */
  retireMs: 60_000,
} as const;
