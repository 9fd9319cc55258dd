import type { Clock } from '../../clock.ts';
import type { Logger } from '../../log.ts';
import type { MirrorChain } from './chains.ts';
import { MIRROR_LIMITS } from './limits.ts';
import type { MirrorHost } from './mirror-host.ts';
import { judge } from './verdict.ts';

/** What is asked of mirrors. */
export interface MirrorQuestion {
  readonly need: 'pull' | 'resolve';
  /** Names the repository and the thing in it, for what a mirror declined. */
  readonly repository: string;
  readonly subject: string;
  readonly signal: AbortSignal;
  readonly urgency?: 'demand' | 'prefetch' | undefined;
}

/** The answer of the first mirror that had one; else the error of the last that was asked, if any was. */
export type MirrorOutcome<T> = { readonly value: T } | { readonly error: unknown };

/**
 * Asks the mirrors of a chain in order: those that rest or declined are passed over, those that fail are put to rest.
 * All together they get `demandBudgetMs` (F13: a read must still succeed in 6 s). Throws only the caller's own signal's
 * reason.
 */
export async function throughMirrors<T>(
  components: { clock: Clock; log: Logger },
  chain: MirrorChain,
  question: MirrorQuestion,
  read: (host: MirrorHost, signal: AbortSignal) => Promise<T>,
): Promise<MirrorOutcome<T>> {
  const { clock } = components;
  const { need, repository, subject, signal } = question;
  const budgetMs = question.urgency === 'prefetch' ? MIRROR_LIMITS.prefetchBudgetMs : MIRROR_LIMITS.demandBudgetMs;
  const deadlineMs = clock.nowMs() + budgetMs;
  let last: unknown;
  for (const host of chain.hosts) {
    signal.throwIfAborted();
    if (!host[need] || host.declines.has(repository, subject)) continue;
    const leftMs = deadlineMs - clock.nowMs();
    if (leftMs <= 0) break;
    const admission = host.endpoint.admit();
    if (admission === 'no') continue;
    const startedMs = clock.nowMs();
    const usable = host.endpoint.signal();
    try {
      const either = AbortSignal.any([signal, usable, AbortSignal.timeout(Math.ceil(leftMs))]);
      const value = await read(host, either);
      host.endpoint.succeeded(admission);
      return { value };
    } catch (error) {
      if (signal.aborted) {
        host.endpoint.abandoned(admission);
        throw signal.reason;
      }
      last = error;
      if (usable.aborted) {
        // Another read found it failing while this one was under way.
        host.endpoint.abandoned(admission);
        continue;
      }
      if (note(host, error, { admission, question, tookMs: clock.nowMs() - startedMs }) === 'straight') break;
    }
  }
  return { error: last };
}

type How = { admission: 'yes' | 'trial'; question: MirrorQuestion; tookMs: number };

/** `straight`: the mirrors after this one are not asked either. */
function note(host: MirrorHost, error: unknown, { admission, question, tookMs }: How): 'next' | 'straight' {
  const verdict = judge(error, tookMs, host);
  if (verdict.kind === 'failed') {
    if (!counted.has(error as object)) host.endpoint.failed(admission, verdict, error);
    else host.endpoint.abandoned(admission);
    // One request that failed is told to every chunk that was in it.
    if (typeof error === 'object' && error !== null) counted.add(error);
    host.forget();
    return 'next';
  }
  // It answers, so it is well.
  host.endpoint.succeeded(admission);
  if (verdict.kind === 'passed-on') return 'next';
  const waitsForToken = verdict.scope === 'token' && host.mayHaveToken;
  const forMs = waitsForToken ? MIRROR_LIMITS.tokenDeclineMs : MIRROR_LIMITS.declineMs;
  host.declines.add(verdict.scope === 'blob' ? question.subject : question.repository, forMs);
  return verdict.straight ? 'straight' : 'next';
}

const counted = new WeakSet<object>();
