import type { Fault } from './trap.ts';

/** Faults on their way from a trap to its one consumer. */
export interface FaultQueue extends AsyncIterable<Fault> {
  push(fault: Fault): void;
  /** Ends the iteration; faults not taken yet are dropped, their trap has denied them. */
  end(): void;
}

/** An unbounded queue: its length is bounded by the readers that wait, one fault each. */
export function createFaultQueue(): FaultQueue {
  let waiting: Fault[] = [];
  let taken = 0;
  let ended = false;
  let wake: (() => void) | undefined;

  const next = async (): Promise<IteratorResult<Fault>> => {
    for (;;) {
      if (ended) return { done: true, value: undefined };
      const fault = waiting[taken];
      if (fault !== undefined) {
        taken += 1;
        if (taken === waiting.length) {
          waiting = [];
          taken = 0;
        }
        return { done: false, value: fault };
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  };
  const signal = (): void => {
    wake?.();
    wake = undefined;
  };
  return {
    push(fault) {
      if (ended) return;
      waiting.push(fault);
      signal();
    },
    end() {
      ended = true;
      waiting = [];
      signal();
    },
    [Symbol.asyncIterator]: () => ({ next }),
  };
}
