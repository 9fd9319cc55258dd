import { backoffMs } from './backoff.ts';
import { PACE_LIMITS } from './registry-pace-limits.ts';

/** Who waits for a request: a reader, or nobody yet. */
export type PaceUrgency = 'demand' | 'prefetch';

/**
 * What came of a request: the registry answered (also: no), said it has too much to do (429, 503), could not be reached
 * or failed (connection, timeout, other 5xx), or nobody knows (it was given up).
 */
export type PaceOutcome = 'answered' | 'throttled' | 'away' | 'unknown';

/** A request under way. */
export interface PacedRequest {
  readonly urgency: PaceUrgency;
  /** Started while the registry was under suspicion: its outcome speaks for all. */
  readonly isProbe: boolean;
}

/** How fast one registry may be asked: one state for all readers. Pure: time and chance come from outside. */
export interface RegistryPace {
  /** Milliseconds until a request may start, 0 for now; undefined: not before one under way ends. */
  waitMs(nowMs: number, urgency: PaceUrgency): number | undefined;
  /** A request starts now. */
  start(urgency: PaceUrgency): PacedRequest;
  /** The registry began to answer it: a probe that brings much need not have ended for the others to go on. */
  progress(request: PacedRequest): void;
  /** It ended; `askedMs`: the registry wants to be left alone for so long. */
  end(request: PacedRequest, nowMs: number, outcome: PaceOutcome, askedMs?: number): void;
  /** How long a request that just failed should go on trying: `budgetMs`, less what others have tried in vain already. */
  patienceMs(nowMs: number, budgetMs: number): number;
  /** True while the registry cannot be reached, for all that is known. */
  isAway(nowMs: number): boolean;
  /** True when nothing is remembered that matters. */
  isIdle(nowMs: number): boolean;
}

/**
 * Up to `most` requests at a time, prefetch a part of them. 429 and 503 halve that and make everybody rest (Retry-After,
 * else 1 s, doubling); several failures in a row make everybody rest briefly. After a rest one request probes, the
 * others wait for what becomes of it. Each answer then lets a bit more through. `random` is in [0, 1).
 */
export function createRegistryPace(init: { most: number; random: () => number; rests?: boolean }): RegistryPace {
  const { most, random, rests = true } = init;
  let limit = most;
  let running = 0;
  let prefetching = 0;
  let probing = 0;
  let restUntilMs = Number.NEGATIVE_INFINITY;
  /** After a rest, until a request was answered. */
  let isSuspect = false;
  let throttles = 0;
  let failures = 0;
  let awayRests = 0;
  let awaySinceMs = 0;
  let lastFailureMs = Number.NEGATIVE_INFINITY;

  function rest(nowMs: number, ms: number): void {
    if (!rests) return;
    restUntilMs = nowMs + ms * (1 + random() * PACE_LIMITS.spread);
    isSuspect = true;
  }

  function answered(): void {
    isSuspect = false;
    throttles = 0;
    failures = 0;
    awayRests = 0;
    limit = Math.min(most, limit + 1 / limit);
  }

  function throttled(nowMs: number, askedMs: number | undefined): void {
    const asked = Math.min(askedMs ?? 0, PACE_LIMITS.longestAskedMs);
    if (nowMs < restUntilMs) {
      // One of those that were under way: it belongs to the same rest, which may only get longer.
      if (nowMs + asked > restUntilMs) rest(nowMs, asked);
      return;
    }
    throttles += 1;
    limit = Math.max(1, limit / 2);
    rest(nowMs, askedMs === undefined ? backoffMs(throttles, PACE_LIMITS.throttledRest) : asked);
  }

  function away(nowMs: number): void {
    if (failures === 0 || nowMs - lastFailureMs > PACE_LIMITS.evidenceMs) {
      failures = 0;
      awayRests = 0;
      awaySinceMs = nowMs;
    }
    failures += 1;
    lastFailureMs = nowMs;
    if (failures < PACE_LIMITS.failuresBeforeRest || nowMs < restUntilMs) return;
    awayRests += 1;
    rest(nowMs, backoffMs(awayRests, PACE_LIMITS.awayRest));
  }

  return {
    waitMs(nowMs, urgency) {
      if (nowMs < restUntilMs) return restUntilMs - nowMs;
      const places = Math.max(1, Math.floor(limit));
      if (running >= places || (isSuspect && probing > 0)) return undefined;
      const share = Math.max(1, Math.floor(places * PACE_LIMITS.prefetchShare));
      return urgency === 'prefetch' && prefetching >= share ? undefined : 0;
    },
    start(urgency) {
      running += 1;
      if (urgency === 'prefetch') prefetching += 1;
      if (isSuspect) probing += 1;
      return { urgency, isProbe: isSuspect };
    },
    progress({ isProbe }) {
      if (isProbe) answered();
    },
    end({ urgency, isProbe }, nowMs, outcome, askedMs) {
      running -= 1;
      if (urgency === 'prefetch') prefetching -= 1;
      if (isProbe) probing -= 1;
      if (outcome === 'answered') answered();
      else if (outcome === 'throttled') throttled(nowMs, askedMs);
      else if (outcome === 'away') away(nowMs);
    },
    patienceMs(nowMs, budgetMs) {
      const isFresh = failures > 0 && nowMs - lastFailureMs <= PACE_LIMITS.evidenceMs;
      const spent = isFresh ? nowMs - awaySinceMs : 0;
      return Math.max(Math.min(PACE_LIMITS.leastPatienceMs, budgetMs), budgetMs - spent);
    },
    isAway: (nowMs) => failures >= PACE_LIMITS.failuresBeforeRest && nowMs - lastFailureMs <= PACE_LIMITS.evidenceMs,
    isIdle: (nowMs) =>
      running === 0 && nowMs >= restUntilMs && limit >= most && nowMs - lastFailureMs > PACE_LIMITS.evidenceMs,
  };
}
