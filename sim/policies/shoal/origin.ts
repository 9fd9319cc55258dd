import { COST } from '../../cost-model.ts';
import type { ShoalNode, Wanted } from './node.ts';

interface Ask {
  readonly wanted: Wanted;
  readonly done: () => void;
  isOver: boolean;
}

/**
 * The way to the registry: chunks of one layer that lie side by side and are asked for together become one ranged
 * request, up to a size; its chunks arrive one after the other. A node has only so many requests under way.
 */
export class Origin {
  readonly #node: ShoalNode;
  readonly #life: number;
  #gathering: Ask[] = [];
  readonly #waiting: Ask[][] = [];
  #active = 0;

  constructor(node: ShoalNode) {
    this.#node = node;
    this.#life = node.host.life;
  }

  /** Calls back when the chunk came and was inflated and verified; answers how to give it up. */
  get(wanted: Wanted, done: () => void): () => void {
    const ask: Ask = { wanted, done, isOver: false };
    this.#gathering.push(ask);
    if (this.#gathering.length === 1) this.#node.swarm.world.timeline.after(0, () => this.#send());
    return () => {
      ask.isOver = true;
    };
  }

  #send(): void {
    const asks = this.#gathering.filter(({ isOver }) => !isOver);
    this.#gathering = [];
    asks.sort((a, b) => a.wanted.chunk.index - b.wanted.chunk.index);
    const most = this.#node.swarm.scenario.shoal.requestKib * 1024;
    let run: Ask[] = [];
    let bytes = 0;
    for (const ask of asks) {
      const { chunk } = ask.wanted;
      const last = run.at(-1)?.wanted.chunk;
      const continues = last !== undefined && chunk.index === last.index + 1 && chunk.layer === last.layer;
      if (run.length > 0 && !(continues && bytes + chunk.bytes <= most)) {
        this.#waiting.push(run);
        [run, bytes] = [[], 0];
      }
      run.push(ask);
      bytes += chunk.bytes;
    }
    if (run.length > 0) this.#waiting.push(run);
    this.#next();
  }

  #next(): void {
    while (this.#active < this.#node.swarm.scenario.shoal.registryConnections) {
      const run = this.#waiting.shift()?.filter(({ isOver }) => !isOver);
      if (run === undefined) return;
      if (run.length > 0) this.#fetch(run);
    }
  }

  #fetch(run: readonly Ask[]): void {
    const { swarm, host } = this.#node;
    const { world } = swarm;
    this.#active += 1;
    let at = 0;
    const arrived = (how: 'done' | 'lost'): void => {
      if (how === 'lost' || host.life !== this.#life) return;
      const { wanted, done } = run[at] as Ask;
      at += 1;
      const { bytes, compressedBytes, count } = wanted.chunk;
      const inflate = compressedBytes < bytes ? COST.inflateMsPerByte : 0;
      const workMs = compressedBytes * COST.tlsMsPerByte + bytes * (COST.hashMsPerByte + inflate);
      world.work(host, count * world.cost.readMs + workMs, done);
      const next = run[at];
      if (next !== undefined) {
        world.move(world.registry.host, host, next.wanted.chunk.compressedBytes, 'registry', { moveOver: arrived });
        return;
      }
      this.#active -= 1;
      this.#next();
    };
    world.registry.fetch(host, (run[0] as Ask).wanted.chunk.compressedBytes, arrived);
  }
}
