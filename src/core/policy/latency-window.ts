import { HEDGE_LIMITS } from './hedge-limits.ts';

/** How long reads of one source took lately, apart for small, middling and large chunks. */
export interface LatencyWindow {
  note(bytes: number, ms: number): void;
  /** The time below which this part (0 to 1) of the recent reads of such a size ended, ms; undefined when too few did. */
  quantile(bytes: number, part: number): number | undefined;
}

/** Upper bounds of the size classes, bytes; one more takes the rest. */
const CLASS_BYTES = [64 * 1024, 512 * 1024] as const;

interface SizeClass {
  /** A ring. */
  readonly ms: number[];
  next: number;
  /** As of some observations ago: asked for much more often than it changes. */
  sorted: number[];
  news: number;
}

function emptyClass(): SizeClass {
  return { ms: [], next: 0, sorted: [], news: 0 };
}

/** An empty window; its quantiles lag a few observations behind. */
export function createLatencyWindow(): LatencyWindow {
  const classes = Array.from({ length: CLASS_BYTES.length + 1 }, emptyClass);
  const classOf = (bytes: number): SizeClass => {
    const found = CLASS_BYTES.findIndex((bound) => bytes <= bound);
    return classes[found === -1 ? CLASS_BYTES.length : found] as SizeClass;
  };
  return {
    note(bytes, ms) {
      const held = classOf(bytes);
      held.ms[held.next] = ms;
      held.next = (held.next + 1) % HEDGE_LIMITS.window;
      held.news += 1;
    },
    quantile(bytes, part) {
      const held = classOf(bytes);
      const { ms } = held;
      if (ms.length < HEDGE_LIMITS.minSamples) return undefined;
      if (held.sorted.length === 0 || held.news >= HEDGE_LIMITS.minSamples) {
        held.sorted = ms.toSorted((a, b) => a - b);
        held.news = 0;
      }
      const { sorted } = held;
      return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
    },
  };
}
