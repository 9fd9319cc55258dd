import { availableParallelism } from 'node:os';

/** A C function that koffi can call on libuv's thread pool. */
export interface ThreadCallable {
  async(...args: unknown[]): void;
}

/**
 * Calls under way in the whole process: one more than cores, since they compute, and at most six of the eight threads that
 * bin/shoal asks libuv for, so that the disk always finds one.
 */
const MAX_CALLS = Math.max(2, Math.min(6, availableParallelism() + 1));
const waiting: (() => void)[] = [];
let running = 0;

/**
 * Calls `callee` on the thread pool. Memory that it is given by address must be kept alive by the caller until this
 * settles, which it always does: a call that began cannot be stopped.
 */
export function callOnThread<T>(callee: ThreadCallable, ...args: unknown[]): Promise<T> {
  return new Promise((resolve, reject) => {
    const start = (): void => {
      running += 1;
      try {
        callee.async(...args, (error: unknown, result: T) => {
          over();
          if (error === null || error === undefined) resolve(result);
          else reject(error);
        });
      } catch (error) {
        over();
        reject(error);
      }
    };
    if (running < MAX_CALLS) start();
    else waiting.push(start);
  });
}

function over(): void {
  running -= 1;
  waiting.shift()?.();
}
