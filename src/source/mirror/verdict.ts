import { hasCode, ShoalError } from '../../errors.ts';
import { MIRROR_LIMITS } from './limits.ts';

/** What a failed read says about the mirror, and what to do next. */
export type Verdict =
  /** The mirror is at fault: its breaker is told. */
  | { readonly kind: 'failed'; readonly grave: boolean; readonly restMs?: number }
  /** It does not have or give this: not asked for it again for a while. `straight`: nor are the mirrors after it. */
  | { readonly kind: 'declined'; readonly scope: 'blob' | 'repository' | 'token'; readonly straight: boolean }
  /** The registry's own error, passed on. */
  | { readonly kind: 'passed-on' };

/**
 * Reads an error of a mirror client (reference: anchors-mission 1.7, 2.3). A failure is grave when it cost the reader
 * time (`tookMs`), or when the bytes were wrong.
 */
export function judge(error: unknown, tookMs: number, init: { costlyMs: number }): Verdict {
  const grave = tookMs >= init.costlyMs;
  if (hasCode(error, 'CHUNK_CORRUPT') || hasCode(error, 'INVALID_MANIFEST')) return { kind: 'failed', grave: true };
  if (!(error instanceof ShoalError)) return { kind: 'failed', grave };
  const { status, retryAfterMs, errorType } = error.context;
  const backend = errorType === 'backend';
  if (status === 429 && !backend)
    return { kind: 'failed', grave: true, restMs: retryAfterMs ?? MIRROR_LIMITS.throttleMs };
  if (status === 403) return { kind: 'declined', scope: 'repository', straight: true };
  if (status === 401) return { kind: 'declined', scope: 'token', straight: false };
  if (status === 404 || hasCode(error, 'CHUNK_MISSING')) return { kind: 'declined', scope: 'blob', straight: false };
  if (backend) return { kind: 'passed-on' };
  if (status === 503 && retryAfterMs !== undefined) return { kind: 'failed', grave: true, restMs: retryAfterMs };
  return { kind: 'failed', grave };
}
