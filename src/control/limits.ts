/** Bounds of the control protocol: local, few callers, small answers. */
export const CONTROL_LIMITS = {
  /** Connections at a time; each `shoal status` takes one. */
  connections: 64,
  /** A request must be complete by then. */
  requestTimeoutMs: 5_000,
  /** A route must answer by then, unless it asks for more. */
  answerTimeoutMs: 10_000,
  /** Answers under way when the daemon stops may take this much longer. */
  stopGraceMs: 1_000,
  /** Body of a request. */
  requestBytes: 64 * 1024,
  /** Body of an answer: about 1 KiB per layer, a thousand images of 60 layers. */
  answerBytes: 64 * 1024 * 1024,
} as const;
