/** Every bound of the registry protocol, in one place: unit in the name, reason beside it. */
export const REGISTRY_LIMITS = {
  /** Connections per origin; registries and object stores throttle clients that open more. */
  connections: 16,
  /** A registry that needs longer to accept is down. Covers name resolution and TLS. */
  connectTimeoutMs: 3_000,
  /** First byte of the answer: object stores take up to a few seconds for a cold blob. */
  headersTimeoutMs: 10_000,
  /** Longest time without a byte of the body. */
  stallTimeoutMs: 10_000,
  /** One attempt in all, against servers that drip; the caller's signal usually ends it earlier. */
  attemptTimeoutMs: 120_000,
  /** Response header block; presigned redirects take 2 to 4 KiB. */
  maxHeaderBytes: 32 * 1024,
  /** An answer whose body does not matter is read up to here to keep its connection, and cut beyond. */
  maxDiscardBytes: 64 * 1024,
  /** One ranged read; larger ones would hold too much memory for one request. */
  maxReadBytes: 256 * 1024 * 1024,
  /** An image config; the largest seen have 200 KiB. */
  maxConfigBytes: 8 * 1024 * 1024,
  /** Tries of one request, first included, if its budget lasts that long. */
  attempts: 20,
  /** How long a request goes on trying after its first failure (F16): a registry that restarts is back by then. */
  retryBudgetMs: 10_000,
  /** First wait between tries; doubles each time, plus up to as much jitter. */
  retryBaseMs: 100,
  /** Longest wait between tries. */
  retryMaxMs: 1_000,
  /** A Retry-After beyond this fails at once: waiting is the caller's decision. */
  maxRetryAfterMs: 30_000,
  /** How long a blob's redirect is used again; presigned URLs live 5 to 20 minutes. */
  redirectTtlMs: 60_000,
  /** Remembered redirects: about 4 KiB each. */
  maxRedirects: 1_024,
} as const;

/** Bounds of the token flow. */
export const TOKEN_LIMITS = {
  /** A WWW-Authenticate header. */
  maxChallengeLength: 8 * 1024,
  maxChallenges: 8,
  maxParameters: 16,
  /** A token server's answer, and the token in it: header blocks end at 32 KiB almost everywhere. */
  maxResponseBytes: 64 * 1024,
  maxTokenLength: 16 * 1024,
  /** Validity when the answer names none (distribution spec, token.md). */
  defaultLifetimeMs: 60_000,
  maxLifetimeMs: 24 * 3_600_000,
  /** Part of its validity after which a token is replaced while it is used on. */
  refreshFraction: 0.7,
  /** Part of its validity for which a token is used: clocks and requests under way take the rest. */
  useFraction: 0.9,
  /** After everything we have was refused nobody asks for this long: a changed password counts soon, no account is locked. */
  refusedRest: { firstMs: 1_000, longestMs: 10_000 },
  /** A token that is good for longer is not lent to a mirror (S8). */
  longestLentMs: 5 * 60_000,
  /** Challenges that one request answers: one per credential tried. */
  maxAnswers: 8,
  /** One token request with its retries; shared by all who wait for it. */
  flightTimeoutMs: 30_000,
  /** Remembered authorizations, one per repository. */
  maxCached: 4_096,
} as const;
