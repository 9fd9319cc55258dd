import { HEDGE_LIMITS } from './hedge-limits.ts';

/** How long reads of one source took lately, apart for small, middling and large chunks. */
export interface LatencyWindow {
  note(bytes: number, ms: number): void;
  /** The time below which this part (0 to 1) of the recent reads of such a size ended, ms; undefined when too few did. */
  quantile(bytes: number, part: number): number | undefined;
}

/** Upper bounds of the size classes, bytes; one more takes the rest. */
const CLASS_BYTES = [64 * 1024, 512 * 1024] as const;

/** An empty window. */
export function createLatencyWindow(): LatencyWindow {
  const classes = Array.from({ length: CLASS_BYTES.length + 1 }, () => ({ ms: [] as number[], next: 0 }));
  const classOf = (bytes: number): { ms: number[]; next: number } => {
    const found = CLASS_BYTES.findIndex((bound) => bytes <= bound);
    return classes[found === -1 ? CLASS_BYTES.length : found] as { ms: number[]; next: number };
  };
  return {
    note(bytes, ms) {
      const held = classOf(bytes);
      held.ms[held.next] = ms;
      held.next = (held.next + 1) % HEDGE_LIMITS.window;
    },
    quantile(bytes, part) {
      const { ms } = classOf(bytes);
      if (ms.length < HEDGE_LIMITS.minSamples) return undefined;
      const sorted = ms.toSorted((a, b) => a - b);
      return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
    },
  };
}
