import { Alarm } from '../engine/timeline.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** A message on its way, and the news that it was refused on its way back. */
export class Delivery extends Alarm {
  readonly #world: World;
  readonly #init: { from: Host; to: Host; arrived: () => void; refused: (() => void) | undefined };
  readonly #fromLife: number;
  readonly #toLife: number;
  #isRefused = false;

  constructor(world: World, init: { from: Host; to: Host; arrived: () => void; refused: (() => void) | undefined }) {
    super();
    this.#world = world;
    this.#init = init;
    this.#fromLife = init.from.life;
    this.#toLife = init.to.life;
  }

  ring(): void {
    const { from, to, arrived, refused } = this.#init;
    if (this.#isRefused) {
      if (from.life === this.#fromLife) refused?.();
    } else if (to.isUp && to.life === this.#toLife) {
      to.messagesIn += 1;
      arrived();
    } else if (refused !== undefined) {
      this.#isRefused = true;
      this.#world.timeline.set(this, this.#world.latencyMs(from, to));
    }
  }
}
