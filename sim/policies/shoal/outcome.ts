import type { Outcome } from '../../../src/core/policy/neighbour-score.ts';
import type { Answer } from './server.ts';

/** What the daemon's scores are told of an answer to a request that a neighbour might keep for `waitMs`. */
export function outcomeOf(answer: Answer, bytes: number, waitMs: number): Outcome {
  switch (answer.kind) {
    case 'ok': {
      const { firstByteMs, totalMs } = answer;
      return {
        kind: 'ok',
        bytes,
        firstByteMs: waitMs === 0 ? firstByteMs : undefined,
        transferMs: totalMs - firstByteMs,
      };
    }
    case 'busy':
      return { kind: 'busy', retryAfterMs: answer.retryAfterMs };
    case 'missing':
      return { kind: 'missing' };
    case 'failed':
      return { kind: 'failed' };
  }
}
