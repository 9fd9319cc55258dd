/** Every number that decides which neighbour is asked, in one place: unit in the name, reason beside it. */
export const NEIGHBOUR_LIMITS = {
  /** Weight of the newest observation: the last five or so count, so a neighbour that got busy is noticed in a second. */
  newestWeight: 0.25,
  /** What is assumed of a neighbour nobody asked yet, ms: a LAN round trip and a disk read; low, so that it gets asked. */
  unknownLatencyMs: 3,
  /** The same for its throughput, bytes per ms: 1 Gbit/s. */
  unknownBytesPerMs: 125_000,
  /** A neighbour of another zone is preferred only when it is this much faster: crossing zones costs money. */
  otherZoneFactor: 4,
  /** A neighbour whose every request fails counts as this much slower. */
  errorFactor: 16,
  /** First rest after a failure, ms; doubles with each further one in a row. */
  firstRestMs: 500,
  /** Longest rest, ms: a neighbour that restarted is used again after this time at the latest. */
  longestRestMs: 30_000,
  /** Longest rest that a busy neighbour can ask for, ms. */
  longestBusyMs: 5_000,
  /** One wrong byte and the neighbour is not asked for this long, ms (F11). */
  banMs: 600_000,
  /** Neighbours of which something is remembered; beyond, the one not seen for longest is forgotten: 1 KB each. */
  maxRemembered: 4_096,
  /** Neighbours asked for one chunk before it counts as missing: each costs a round trip at worst. */
  maxAsked: 4,
  /**
   * Neighbours that may answer "busy" to a request nobody waits for before the chunk is claimed: in a crowd all are busy,
   * and the claim says who is not. Half the messages, the same start times; a read that somebody waits for tries on,
   * without that starts took 15 to 30 % longer (docs/studies/flash-crowd.md).
   */
  maxRefusals: 1,
  /** How long "nobody has it" is believed, ms: shorter than it takes to announce a new chunk. */
  negativeMs: 1_000,
  /** Remembered "nobody has it" answers: 200 B each. */
  maxNegative: 16_384,
} as const;

/** Numbers of the session that a blob has with the neighbours that hold parts of it. */
export const SESSION_LIMITS = {
  /** Blobs with a session; the one unused for longest goes. */
  maxSessions: 256,
  /** Neighbours per session: enough to spread load and to lose some; a bitmap of 100,000 rows has 12.5 KB. */
  maxMembers: 16,
  /** Bytes of one bitmap: 8 M rows; a longer one is a lie. */
  maxMapBytes: 1024 * 1024,
  /** Neighbours asked for their bitmap when a session starts. */
  firstMembers: 8,
  /** A bitmap older than this is asked for again when it lacks what is wanted, ms: a node fetches some chunks a second. */
  refreshMs: 500,
  /** How long the first read of a blob waits for bitmaps, ms: several LAN round trips, less than any registry takes. */
  mapWaitMs: 60,
  /** How long the directory may look for holders of one chunk while somebody waits, ms: one hop with margin. */
  findDemandMs: 60,
  /** The same when nobody waits. */
  findPrefetchMs: 250,
  /** One bitmap request, ms. */
  mapDeadlineMs: 1_000,
  /** After so many lookups in a row that found nobody, only some chunks of the blob are looked up. */
  emptyFinds: 32,
  /** After so many chunks of a blob in a row that neighbours were too busy for, prefetch asks unclaimed for some only, */
  refusedInRow: 4,
  /** … each this many-th: an image that shares nothing costs few messages, one that does is noticed. */
  sampleEach: 8,
} as const;
