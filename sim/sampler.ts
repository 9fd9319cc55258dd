import type { World } from './network/world.ts';
import type { Sample } from './result.ts';

/** First distance of samples, ms; it doubles whenever there are too many. */
const FIRST_INTERVAL_MS = 50;
const MOST_SAMPLES = 240;

/** Takes down the counters at even distances while the simulation runs. */
export interface Sampler {
  /** One more at the end. */
  finish(): readonly Sample[];
}

/** `ready`: starts that are ready now. Sampling goes on while `isOver` is false. */
export function createSampler(world: World, init: { ready: () => number; isOver: () => boolean }): Sampler {
  let samples: Sample[] = [];
  let intervalMs = FIRST_INTERVAL_MS;

  function take(): void {
    const { bytes, messages } = world.counters;
    samples.push({
      atMs: world.timeline.nowMs(),
      registryBytes: world.registry.host.up.carriedBytes(),
      neighbourBytes: bytes.neighbour + bytes.seed,
      messages: Object.values(messages).reduce((sum, count) => sum + count, 0),
      ready: init.ready(),
    });
    if (samples.length <= MOST_SAMPLES) return;
    samples = samples.filter((_, at) => at % 2 === 0);
    intervalMs *= 2;
  }

  function tick(): void {
    if (init.isOver()) return;
    take();
    world.timeline.after(intervalMs, tick);
  }

  tick();
  return {
    finish() {
      take();
      return samples;
    },
  };
}
