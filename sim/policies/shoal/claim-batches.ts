import { CLAIM_WAIT_LIMITS } from '../../../src/core/policy/claim-wait-limits.ts';
import type { Claimer, Region } from './claim-reply.ts';
import type { ShoalNode, Wanted } from './node.ts';

interface Asking {
  readonly region: Region;
  readonly contents: number[];
  readonly claimers: Claimer[];
}

interface Settling {
  readonly region: Region;
  readonly outcome: 'held' | 'failed';
  readonly contents: number[];
}

/** Sends claims and their ends in few messages, one per region and moment, with the daemon's limits. */
export class ClaimBatches {
  readonly #node: ShoalNode;
  readonly #asking = new Map<number, Asking>();
  readonly #settling = new Map<number, Settling>();

  constructor(node: ShoalNode) {
    this.#node = node;
  }

  claim({ chunk, layer }: Wanted, claimer: Claimer): void {
    const region = regionOf({ chunk, layer });
    if (chunk.bytes >= CLAIM_WAIT_LIMITS.regionBytes) {
      // All of its region: nothing else could come into the message.
      const delayMs = CLAIM_WAIT_LIMITS.gatherMs;
      this.#node.swarm.claim(this.#node, region, [chunk.content], { delayMs, claimers: [claimer] });
      return;
    }
    const key = region.blob * 65_536 + region.region;
    let batch = this.#asking.get(key);
    if (batch === undefined) {
      const made: Asking = { region, contents: [], claimers: [] };
      batch = made;
      this.#asking.set(key, made);
      this.#later(() => {
        this.#asking.delete(key);
        this.#node.swarm.claim(this.#node, region, made.contents, { delayMs: 0, claimers: made.claimers });
      });
    }
    batch.contents.push(chunk.content);
    batch.claimers.push(claimer);
  }

  settle({ chunk, layer }: Wanted, outcome: 'held' | 'failed'): void {
    const region = regionOf({ chunk, layer });
    if (chunk.bytes >= CLAIM_WAIT_LIMITS.regionBytes) {
      const delayMs = CLAIM_WAIT_LIMITS.gatherMs;
      this.#node.swarm.settle(this.#node, region, [chunk.content], { delayMs, outcome });
      return;
    }
    const key = 2 * (region.blob * 65_536 + region.region) + (outcome === 'held' ? 1 : 0);
    let batch = this.#settling.get(key);
    if (batch === undefined) {
      const made: Settling = { region, outcome, contents: [] };
      batch = made;
      this.#settling.set(key, made);
      this.#later(() => {
        this.#settling.delete(key);
        this.#node.swarm.settle(this.#node, region, made.contents, { delayMs: 0, outcome });
      });
    }
    batch.contents.push(chunk.content);
  }

  #later(callback: () => void): void {
    const { host, swarm } = this.#node;
    const { life } = host;
    swarm.world.timeline.after(CLAIM_WAIT_LIMITS.gatherMs, () => host.isUp && host.life === life && callback());
  }
}

/** Rows that start in the same few MiB of the device go to the same coordinator, as `claimUnit` of the daemon has it. */
function regionOf({ chunk, layer }: Wanted): Region {
  return { blob: layer.blob, region: Math.floor(chunk.offset / CLAIM_WAIT_LIMITS.regionBytes) };
}
