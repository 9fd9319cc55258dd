import type { Clock } from '../../clock.ts';
import { ShoalError } from '../../errors.ts';
import { REGISTRY_LIMITS } from './limits.ts';

/** How often and how fast a failed request is tried again; times in milliseconds. */
export interface RetryInit {
  readonly attempts?: number;
  readonly retryBaseMs?: number;
  readonly retryMaxMs?: number;
  readonly maxRetryAfterMs?: number;
  /** How long to go on after the first failure; a registry that is merely busy (429, 503) does not use it up. */
  readonly retryBudgetMs?: number;
}

/** What retrying needs from outside; `random` is in [0, 1). */
export interface RetryComponents {
  readonly clock: Clock;
  readonly random: () => number;
}

/** True when the same request may succeed a moment later: network errors, 408, 429 and most 5xx. */
export function isTransient(error: unknown): error is ShoalError {
  if (!(error instanceof ShoalError)) return false;
  if (error.code === 'SOURCE_FAILED') return true;
  const { status } = error.context;
  return error.code === 'REGISTRY_RESPONSE' && status !== undefined && [408, 429, 500, 502, 503, 504].includes(status);
}

/**
 * Runs `attempt` until it succeeds, fails for good, or tries or budget are used up, with exponential back-off and jitter;
 * honours Retry-After. `attempt` is told when the budget ends, once a failure started it; `patienceMs` may cut it then. Throws the last error, DEADLINE_EXCEEDED when the signal timed out, else the signal's reason.
 */
export async function withRetries<T>(
  { clock, random }: RetryComponents,
  init: RetryInit,
  signal: AbortSignal,
  attempt: (giveUpAtMs: number | undefined) => Promise<T>,
  onRetry?: (error: ShoalError, waitMs: number) => void,
  patienceMs?: () => number,
): Promise<T> {
  const { attempts, retryBaseMs, retryMaxMs, maxRetryAfterMs, retryBudgetMs } = { ...REGISTRY_LIMITS, ...init };
  let last: unknown;
  let giveUpAtMs: number | undefined;
  for (let tried = 1; ; tried += 1) {
    try {
      signal.throwIfAborted();
      return await attempt(giveUpAtMs);
    } catch (error) {
      if (signal.aborted) throw abortError(signal, last ?? error);
      last = error;
      if (!isTransient(error) || tried >= attempts) throw error;
      const asked = error.context.retryAfterMs ?? 0;
      if (asked > maxRetryAfterMs) throw error;
      const backoff = Math.min(retryMaxMs, retryBaseMs * 2 ** Math.min(tried - 1, 30)) * (0.5 + random());
      let waitMs = Math.max(asked, backoff);
      if (!isBusy(error)) {
        giveUpAtMs ??= clock.nowMs() + (patienceMs?.() ?? retryBudgetMs);
        const leftMs = giveUpAtMs - clock.nowMs();
        if (leftMs <= 0) throw error;
        // The last try comes when the budget ends, not before.
        waitMs = Math.min(waitMs, leftMs);
      }
      onRetry?.(error, waitMs);
      await clock.sleep(waitMs, { signal }).catch(() => {
        throw abortError(signal, error);
      });
    }
  }
}

function isBusy({ context: { status } }: ShoalError): boolean {
  return status === 429 || status === 503;
}

/** The error of an aborted wait: a timeout becomes DEADLINE_EXCEEDED with what was tried last as its cause. */
export function abortError(signal: AbortSignal, cause: unknown): unknown {
  const reason: unknown = signal.reason;
  if (!(reason instanceof DOMException) || reason.name !== 'TimeoutError') return reason;
  const why = cause instanceof ShoalError ? `; last: ${cause.message}` : '';
  return new ShoalError('DEADLINE_EXCEEDED', `the registry did not answer in time${why}`, { cause: cause ?? reason });
}

/** Milliseconds a Retry-After header asks for (seconds or an HTTP date); undefined without a usable one. */
export function parseRetryAfter(header: string | undefined, clock: Clock): number | undefined {
  if (header === undefined) return undefined;
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1000;
  const at = header.length < 64 ? Date.parse(header) : Number.NaN;
  return Number.isNaN(at) ? undefined : Math.max(0, at - clock.wallTimeMs());
}
