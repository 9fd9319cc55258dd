import { CLAIM_WAIT_LIMITS } from '../../src/core/policy/claim-wait-limits.ts';
import type { Scenario } from '../scenario/scenario.ts';

/** Chunks times nodes up to which every chunk is an event of its own: a minute of one processor. */
const MOST_SINGLE_FETCHES = 300_000;

/**
 * How many neighbouring chunks of a layer travel as one: claimed, asked for and sent together, counted as what they are.
 * Always a power of two, never beyond a claim region or a file: so the same node would fetch them anyway, and in the same
 * moment. `[simulation] unit_kib` says how large; without it, 1 for small scenarios and as large as may be for others.
 */
export function unitChunks({ simulation, nodes, image }: Scenario): number {
  const images = Object.values(image).filter(({ trace }) => trace === undefined);
  if (images.length === 0) return 1;
  const fetches = images.reduce((sum, { sizeMib, chunkKib }) => sum + (sizeMib * 1_024) / chunkKib, 0) * nodes.count;
  const wantedKib = simulation.unitKib ?? (fetches > MOST_SINGLE_FETCHES ? Number.POSITIVE_INFINITY : 0);
  const mostChunks = Math.min(
    ...images.map(({ sizeMib, layers, fileKib, chunkKib }) => {
      const regionKib = CLAIM_WAIT_LIMITS.regionBytes / 1_024;
      return Math.min(wantedKib, regionKib, fileKib, (sizeMib * 1_024) / layers) / chunkKib;
    }),
  );
  return mostChunks < 2 ? 1 : 2 ** Math.floor(Math.log2(mostChunks));
}
