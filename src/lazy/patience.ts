import { ShoalError } from '../errors.ts';

/** A deadline that moves on while there is progress. */
export interface Patience extends Disposable {
  /** Fires with DEADLINE_EXCEEDED. */
  readonly signal: AbortSignal;
  /** Something came: the deadline is `idleMs` from now, or when it was `mostMs` after the start. */
  progress(): void;
}

/** `firstMs` is how long the first sign of progress may take. */
export function createPatience(init: { firstMs: number; idleMs: number; mostMs: number }): Patience {
  const abort = new AbortController();
  const lastMs = performance.now() + init.mostMs;
  let untilMs = performance.now() + init.firstMs;
  let timer: NodeJS.Timeout;
  const wait = (): void => {
    const leftMs = untilMs - performance.now();
    if (leftMs <= 0) {
      abort.abort(new ShoalError('DEADLINE_EXCEEDED', 'it took too long'));
      return;
    }
    timer = setTimeout(wait, leftMs).unref();
  };
  timer = setTimeout(wait, init.firstMs).unref();
  return {
    signal: abort.signal,
    progress() {
      untilMs = Math.min(lastMs, Math.max(untilMs, performance.now() + init.idleMs));
    },
    [Symbol.dispose]: () => clearTimeout(timer),
  };
}
