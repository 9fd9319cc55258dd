import type { Clock } from '../../clock.ts';

/** A token bucket. Pure. */
export interface RateLimit {
  /** Takes one token, from the future if need be; gives the ms to wait until it is there. */
  take(): number;
}

/** `perSecond` tokens a second, at most `burst` saved up. */
export function createRateLimit(
  components: { clock: Pick<Clock, 'nowMs'> },
  init: { perSecond: number; burst: number },
): RateLimit {
  const { clock } = components;
  const perMs = init.perSecond / 1_000;
  let tokens = init.burst;
  let atMs = clock.nowMs();
  return {
    take() {
      const nowMs = clock.nowMs();
      tokens = Math.min(init.burst, tokens + (nowMs - atMs) * perMs) - 1;
      atMs = nowMs;
      return tokens >= 0 ? 0 : -tokens / perMs;
    },
  };
}
