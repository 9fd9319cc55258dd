import type { Clock } from '../../clock.ts';
import { MIRROR_LIMITS } from './limits.ts';

/** What a mirror said it does not have or give, for a while. */
export interface Declines {
  has(...keys: readonly string[]): boolean;
  add(key: string, forMs?: number): void;
}

export function createDeclines({ clock }: { clock: Clock }): Declines {
  const untilMs = new Map<string, number>();
  return {
    has(...keys) {
      if (untilMs.size === 0) return false;
      const now = clock.nowMs();
      return keys.some((key) => {
        const until = untilMs.get(key);
        if (until === undefined) return false;
        if (now < until) return true;
        untilMs.delete(key);
        return false;
      });
    },
    add(key, forMs = MIRROR_LIMITS.declineMs) {
      untilMs.delete(key);
      untilMs.set(key, clock.nowMs() + forMs);
      const oldest = untilMs.keys().next().value;
      if (untilMs.size > MIRROR_LIMITS.maxDeclines && oldest !== undefined) untilMs.delete(oldest);
    },
  };
}
