import { createReadahead, type Readahead } from '../../../src/core/policy/readahead.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';
import type { ShoalNode } from './node.ts';

/** Bytes a device has under way ahead of its readers, as the daemon's readahead driver has it. */
const READAHEAD_BUDGET_BYTES = 32 * 1024 * 1024;

/** One layer's device on one node: where its readers are, and what is fetched ahead of them. */
export class Device {
  readonly layer: SimLayer;
  readonly #node: ShoalNode;
  readonly #image: SimImage;
  readonly #policy: Readahead;
  #underWay = 0;

  constructor(node: ShoalNode, image: SimImage, layer: SimLayer) {
    this.layer = layer;
    this.#node = node;
    this.#image = image;
    this.#policy = createReadahead({ deviceSize: layer.bytes });
  }

  /** A cold read of the chunk. */
  onDemand(at: number): void {
    const { chunks } = this.#image;
    const { offset, bytes } = chunks[at] as SimImage['chunks'][number];
    const ahead = this.#policy.onFault({ offset, length: bytes }, READAHEAD_BUDGET_BYTES - this.#underWay);
    if (ahead === undefined) return;
    const end = ahead.offset + ahead.length;
    for (let next = at + 1; next < this.layer.end; next += 1) {
      const chunk = chunks[next] as SimImage['chunks'][number];
      if (chunk.offset >= end) break;
      if (chunk.offset + chunk.bytes <= ahead.offset || this.#node.has(chunk.content)) continue;
      this.#underWay += chunk.bytes;
      this.#node.need({ chunk, layer: this.layer }, 'prefetch', () => {
        this.#underWay -= chunk.bytes;
      });
    }
  }
}
