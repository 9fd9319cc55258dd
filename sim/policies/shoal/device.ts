import { edgeAfter } from '../../../src/core/policy/file-edges.ts';
import { createReadahead, type Readahead } from '../../../src/core/policy/readahead.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';
import { chunksIn, type Marked, placeIn } from './marked.ts';
import type { ShoalNode } from './node.ts';

/** Bytes a device has under way ahead of its readers, as the daemon's readahead driver has it. */
const READAHEAD_BUDGET_BYTES = 32 * 1024 * 1024;

/**
 * One layer's device on one node: where its readers are, and what is fetched ahead of them. `part`: what lies on it, one
 * after the other; in an image that marks what a start reads, that lies together and is not left.
 */
export class Device {
  readonly layer: SimLayer;
  readonly #node: ShoalNode;
  readonly #image: SimImage;
  readonly #part: Marked;
  readonly #policy: Readahead;
  #underWay = 0;

  constructor(node: ShoalNode, image: SimImage, { layer, part }: { layer: SimLayer; part: Marked }) {
    this.layer = layer;
    this.#node = node;
    this.#image = image;
    this.#part = part;
    // Of a part, the files are not where the layer has them, and all of it is wanted.
    const edges = part.bytes === layer.bytes ? layer.edges : [];
    this.#policy = createReadahead({ deviceSize: part.bytes, edgeAfter: (offset) => edgeAfter(edges, offset) });
  }

  /** A cold read of the chunk. */
  onDemand(at: number): void {
    const { chunks } = this.#image;
    const { bytes: length } = chunks[at] as SimImage['chunks'][number];
    const offset = this.#part.starts[placeIn(this.#part, at)] as number;
    const ahead = this.#policy.onFault({ offset, length }, READAHEAD_BUDGET_BYTES - this.#underWay);
    if (ahead === undefined) return;
    for (const next of chunksIn(this.#part, ahead)) {
      const chunk = chunks[next] as SimImage['chunks'][number];
      if (this.#node.has(chunk.content)) continue;
      this.#underWay += chunk.bytes;
      this.#node.need({ chunk, layer: this.layer }, 'prefetch', () => {
        this.#underWay -= chunk.bytes;
      });
    }
  }
}
