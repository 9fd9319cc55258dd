import type { Random } from '../engine/random.ts';
import type { ReadPlan, SimImage } from './image.ts';

/** The reads of one start of `image`; `random` is the node's own. Starts that all read alike share one plan. */
export function createReadPlans(image: SimImage): (random: () => Random) => ReadPlan {
  const { reads } = image;
  if (reads.kind === 'trace') return () => reads.plan;
  const shape = { thinkMs: reads.thinkMs, readers: reads.readers };
  const common = planOf(image.files, shape);
  if (reads.skew === 0) return () => common;
  return (random) => planOf(skewed(image.files, reads.skew, random()), shape);
}

/** Files in an order between the common one and one of the node's own. */
function skewed(files: SimImage['files'], skew: number, random: Random): SimImage['files'] {
  const keyed = files.map((file, at) => ({ file, key: (1 - skew) * (at / files.length) + skew * random.next() }));
  return keyed.sort((a, b) => a.key - b.key).map(({ file }) => file);
}

function planOf(files: SimImage['files'], { thinkMs, readers }: { thinkMs: number; readers: number }): ReadPlan {
  const chunk = Uint32Array.from(files.flat());
  return {
    chunk,
    after: Uint32Array.from(chunk, (_, at) => Math.max(0, at - readers + 1)),
    thinkMs: new Float32Array(chunk.length).fill(thinkMs),
    cores: 1,
  };
}

/** How long the container works between its reads, when each is answered at once; reads side by side think side by side. */
export function thinkTimeMs(plan: ReadPlan): number {
  if (plan.thinkMs.every((ms) => ms === 0)) return 0;
  /** Times of the answers so far, in their order. */
  const ended: number[] = [];
  for (const [at, thinkMs] of plan.thinkMs.entries()) {
    const after = plan.after[at] as number;
    const end = (after === 0 ? 0 : (ended[after - 1] as number)) + thinkMs;
    let place = ended.length;
    while (place > 0 && (ended[place - 1] as number) > end) place -= 1;
    ended.splice(place, 0, end);
  }
  return ended.at(-1) ?? 0;
}
