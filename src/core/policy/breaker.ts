import { backoffMs } from './backoff.ts';

/** `closed`: used. `open`: rests. `half-open`: one read tries it. */
export type BreakerState = 'closed' | 'open' | 'half-open';

/** May a read use the source: no, yes, or as the one that tries it. */
export type Admission = 'no' | 'yes' | 'trial';

/** What a failure was like. */
export interface BreakerFailure {
  /** It cost the reader time, or the bytes were wrong: one is enough. */
  readonly grave: boolean;
  /** The source said for how long it wants to be left alone. */
  readonly restMs?: number;
}

/** Tuning, see the defaults. */
export interface BreakerInit {
  readonly failureLimit?: number;
  readonly firstRestMs?: number;
  /** A health check tells when the rest is over (`checked`); else the first read after it tries. */
  readonly checks?: boolean;
}

/** Failures in a row that open the breaker when each was cheap (nydus: 5). */
const FAILURE_LIMIT = 3;
/** First rest, ms (nydus: health checks every 5 s). */
const FIRST_REST_MS = 5_000;
/** Longest rest, ms: with a health check and a read of trial a source is back within 30 s of its recovery (F13). */
const LONGEST_REST_MS = 20_000;
/** Longest rest a source may ask for, ms. */
const LONGEST_ASKED_MS = 600_000;
/** A trial that has not ended by then is given to another read, ms. */
const TRIAL_MS = 10_000;

/**
 * Decides when a source that fails is left alone and when it is tried again, so that readers pay for a dead one once per
 * rest, not once per read. Pure: times are ms of one monotonic clock. Failures of reads that began before the source was
 * left alone say nothing new and do not count.
 */
export interface Breaker {
  state(): BreakerState;
  admit(nowMs: number): Admission;
  succeeded(admission: Admission): void;
  /** True when this failure opened it. */
  failed(admission: Admission, failure: BreakerFailure, nowMs: number): boolean;
  /** The read was given up, or ended in a way that says nothing about the source. */
  abandoned(admission: Admission): void;
  /** When the rest is over; undefined unless open. */
  restUntilMs(): number | undefined;
  /** A health check, done after the rest, ended. */
  checked(healthy: boolean, nowMs: number): void;
}

export function createBreaker(init: BreakerInit = {}): Breaker {
  const { failureLimit = FAILURE_LIMIT, firstRestMs = FIRST_REST_MS, checks = false } = init;
  let state: BreakerState = 'closed';
  let failures = 0;
  /** Openings since the source last gave something. */
  let openings = 0;
  let restUntilMs = 0;
  let trialUntilMs = 0;

  function open(nowMs: number, askedMs: number | undefined): void {
    state = 'open';
    openings += 1;
    failures = 0;
    trialUntilMs = 0;
    const longestMs = Math.max(firstRestMs, LONGEST_REST_MS);
    const own = backoffMs(Math.min(openings, 32), { firstMs: firstRestMs, longestMs });
    restUntilMs = nowMs + (askedMs === undefined ? own : Math.min(askedMs, LONGEST_ASKED_MS));
  }

  return {
    state: () => state,
    restUntilMs: () => (state === 'open' ? restUntilMs : undefined),
    admit(nowMs) {
      if (state === 'closed') return 'yes';
      if (state === 'open') {
        if (checks || nowMs < restUntilMs) return 'no';
        state = 'half-open';
        trialUntilMs = 0;
      }
      if (nowMs < trialUntilMs) return 'no';
      trialUntilMs = nowMs + TRIAL_MS;
      return 'trial';
    },
    succeeded(admission) {
      if (state === 'closed') failures = 0;
      if (state !== 'half-open' || admission !== 'trial') return;
      state = 'closed';
      failures = 0;
      openings = 0;
    },
    failed(admission, { grave, restMs }, nowMs) {
      if (state === 'open' || (state === 'half-open' && admission !== 'trial')) return false;
      failures += 1;
      if (state === 'closed' && !grave && restMs === undefined && failures < failureLimit) return false;
      open(nowMs, restMs);
      return true;
    },
    abandoned(admission) {
      if (admission === 'trial') trialUntilMs = 0;
    },
    checked(healthy, nowMs) {
      if (state !== 'open' || nowMs < restUntilMs) return;
      if (healthy) {
        state = 'half-open';
        trialUntilMs = 0;
      } else open(nowMs, undefined);
    },
  };
}
