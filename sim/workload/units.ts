import { CLAIM_WAIT_LIMITS } from '../../src/core/policy/claim-wait-limits.ts';
import type { Scenario } from '../scenario/scenario.ts';

/** Chunks times nodes that are simulated one by one at most, if larger units can help: a minute of one processor. */
const MOST_FETCHES = 300_000;

/**
 * How many neighbouring chunks of a layer travel as one: claimed, asked for and sent together, counted as what they are.
 * Always a power of two, never beyond a claim region or a file: so the same node would fetch them anyway, and in the same
 * moment. `[simulation] unit_kib` says how large; without it, no larger than the size of the scenario asks for.
 */
export function unitChunks({ simulation, nodes, image }: Scenario): number {
  const images = Object.values(image).filter(({ trace }) => trace === undefined);
  if (images.length === 0) return 1;
  const fetches = images.reduce((sum, { sizeMib, chunkKib }) => sum + (sizeMib * 1_024) / chunkKib, 0) * nodes.count;
  const chosen = 2 ** Math.ceil(Math.log2(Math.max(1, fetches / MOST_FETCHES)));
  const mostChunks = Math.min(
    simulation.unitKib === undefined ? chosen : Number.POSITIVE_INFINITY,
    ...images.map(({ sizeMib, layers, fileKib, chunkKib }) => {
      const regionKib = CLAIM_WAIT_LIMITS.regionBytes / 1_024;
      return Math.min(simulation.unitKib ?? regionKib, regionKib, fileKib, (sizeMib * 1_024) / layers) / chunkKib;
    }),
  );
  return mostChunks < 2 ? 1 : 2 ** Math.floor(Math.log2(mostChunks));
}
