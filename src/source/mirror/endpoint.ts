import type { Clock } from '../../clock.ts';
import { type Admission, type Breaker, type BreakerFailure, createBreaker } from '../../core/policy/breaker.ts';
import { ShoalError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

/** What is counted of one mirror. */
export interface EndpointCounters {
  /** Reads that ended, in whatever way. */
  requests: number;
  failures: number;
  /** Compressed bytes it gave. */
  bytes: number;
  /** One line, and when (RFC 3339). */
  lastError: { readonly message: string; readonly at: string } | undefined;
}

/**
 * One mirror, whichever registries it stands for: its breaker, its health, its counters. While the breaker is open a
 * health check runs after each rest; what was under way when it opened is given up, so that nobody waits for a dead
 * mirror twice.
 */
export interface Endpoint {
  readonly name: string;
  readonly counters: EndpointCounters;
  readonly breaker: Pick<Breaker, 'state' | 'restUntilMs'>;
  admit(): Admission;
  /** Aborted when the mirror is found to be failing; another one from then on. */
  signal(): AbortSignal;
  succeeded(admission: Admission): void;
  failed(admission: Admission, failure: BreakerFailure, error: unknown): void;
  abandoned(admission: Admission): void;
  /** Ends health checks. Idempotent. */
  close(): void;
}

/** `ping` tells whether the mirror is healthy; it must end by itself. */
export function createEndpoint(
  components: { clock: Clock; log: Logger; ping: (signal: AbortSignal) => Promise<boolean> },
  init: { name: string; failureLimit?: number | undefined; checkIntervalMs?: number | undefined },
): Endpoint {
  const { clock, log, ping } = components;
  const { name, failureLimit, checkIntervalMs } = init;
  const breaker = createBreaker({
    checks: true,
    ...(failureLimit === undefined ? {} : { failureLimit }),
    ...(checkIntervalMs === undefined ? {} : { firstRestMs: checkIntervalMs }),
  });
  const counters: EndpointCounters = { requests: 0, failures: 0, bytes: 0, lastError: undefined };
  const closing = new AbortController();
  let usable = new AbortController();
  let checking = false;

  async function check(): Promise<void> {
    if (checking) return;
    checking = true;
    try {
      for (let until = breaker.restUntilMs(); until !== undefined; until = breaker.restUntilMs()) {
        await clock.sleep(Math.max(0, until - clock.nowMs()), { signal: closing.signal });
        const healthy = await ping(closing.signal).catch(() => false);
        closing.signal.throwIfAborted();
        breaker.checked(healthy, clock.nowMs());
        if (healthy) log.info('mirror answers again', { mirror: name });
      }
    } catch (error) {
      if (!closing.signal.aborted) throw error;
    } finally {
      checking = false;
    }
  }

  return {
    name,
    counters,
    breaker,
    admit: () => breaker.admit(clock.nowMs()),
    signal: () => usable.signal,
    succeeded(admission) {
      counters.requests += 1;
      breaker.succeeded(admission);
    },
    failed(admission, failure, error) {
      const message = error instanceof Error ? error.message : String(error);
      counters.requests += 1;
      counters.failures += 1;
      counters.lastError = { message, at: new Date(clock.wallTimeMs()).toISOString() };
      const now = clock.nowMs();
      if (!breaker.failed(admission, failure, now)) return;
      const restMs = Math.round((breaker.restUntilMs() ?? now) - now);
      log.warn('mirror failed, using the next source', { mirror: name, restMs, error: message });
      const former = usable;
      usable = new AbortController();
      former.abort(new ShoalError('SOURCE_FAILED', `mirror ${name} rests after a failure`));
      void check();
    },
    abandoned(admission) {
      counters.requests += 1;
      breaker.abandoned(admission);
    },
    close: () => closing.abort(),
  };
}
