import { DIRECTORY_LIMITS } from './transport-limits.ts';

/** Keepers of a content's record: nodes at a distance that follows from its number alone. */
export function keeperOf<T>(nodes: readonly T[], content: number, copy: number): T {
  return nodes[mix(content * 8 + copy) % nodes.length] as T;
}

/** Who decides on the claims of a region: the first of its coordinators that is up. `running`: which of the nodes are. */
export function coordinatorOf<T>(
  nodes: readonly T[],
  running: readonly boolean[],
  { blob, region }: { readonly blob: number; readonly region: number },
): T | undefined {
  const start = mix(blob * 65_536 + region + 0x5bd1e995);
  for (let step = 0; step < DIRECTORY_LIMITS.coordinators; step += 1) {
    const at = (start + step) % nodes.length;
    if (running[at] === true) return nodes[at];
  }
  return undefined;
}

/** Spreads whole numbers over 31 bits (the finalizer of MurmurHash3). */
function mix(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 1;
}
