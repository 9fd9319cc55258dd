import { COST } from '../cost-model.ts';
import type { Host } from '../network/host.ts';
import type { World } from '../network/world.ts';
import type { SimLayer } from '../workload/image.ts';
import { thinkTimeMs } from '../workload/reads.ts';
import type { Policy, Start } from './policy.ts';

/** Downloads one layer's compressed bytes to a node; calls back once when they are there. */
export type LayerDownload = (host: Host, layer: SimLayer, done: () => void) => void;

interface NodeState {
  /** Layers that are unpacked here, by their number. */
  readonly unpacked: Uint8Array;
  /** Layers on their way or not unpacked yet, and who waits for them. */
  readonly coming: Map<number, { isHere: boolean; readonly waiting: (() => void)[] }>;
  readonly waiting: (() => void)[];
  active: number;
}

/**
 * What containerd does around a download: some layers at a time, each verified, unpacked in their order, and only then
 * the container runs on a local disk. Simplified: unpacking one image takes one core and the disk, never faster.
 */
export function createWholeImagePolicy(
  components: { world: World; download: LayerDownload; forget?: (host: Host, init: { keepsDisk: boolean }) => void },
  init: { layersAtOnce: number; blobs: number },
): Policy {
  const { world, download } = components;
  const nodes = new Map<Host, NodeState>();
  const stateOf = (host: Host): NodeState => {
    const known = nodes.get(host);
    if (known !== undefined) return known;
    const made: NodeState = { unpacked: new Uint8Array(init.blobs), coming: new Map(), waiting: [], active: 0 };
    nodes.set(host, made);
    return made;
  };

  function fetch(host: Host, layer: SimLayer, done: () => void): void {
    const state = stateOf(host);
    const known = state.coming.get(layer.blob);
    if (known !== undefined) {
      if (known.isHere) done();
      else known.waiting.push(done);
      return;
    }
    const entry = { isHere: false, waiting: [done] };
    state.coming.set(layer.blob, entry);
    const begin = (): void => {
      state.active += 1;
      download(host, layer, () => {
        entry.isHere = true;
        state.active -= 1;
        state.waiting.shift()?.();
        for (const each of entry.waiting) each();
      });
    };
    if (state.active < init.layersAtOnce) begin();
    else state.waiting.push(begin);
  }

  function pull({ host, image, plan, ready }: Start): void {
    const state = stateOf(host);
    const here = image.layers.map(({ blob }) => state.unpacked[blob] === 1);
    let next = 0;
    let busy = false;
    const unpackNext = (): void => {
      const layer = image.layers[next];
      if (layer === undefined) {
        world.think(host, thinkTimeMs(plan), { cores: plan.cores, done: ready });
        return;
      }
      if (busy || here[next] !== true) return;
      const unpacked = (): void => {
        busy = false;
        state.unpacked[layer.blob] = 1;
        state.coming.delete(layer.blob);
        next += 1;
        unpackNext();
      };
      if (state.unpacked[layer.blob] === 1) {
        unpacked();
        return;
      }
      busy = true;
      world.work(host, unpackMs(layer), unpacked);
    };
    for (const [at, layer] of image.layers.entries()) {
      if (here[at] === true) continue;
      fetch(host, layer, () => {
        here[at] = true;
        unpackNext();
      });
    }
    unpackNext();
  }

  return {
    start: pull,
    died(host) {
      const state = nodes.get(host);
      if (state === undefined) return;
      // What was unpacked is on its disk; what was on its way is void.
      nodes.set(host, { unpacked: state.unpacked, coming: new Map(), waiting: [], active: 0 });
    },
    returned(host, { keepsDisk }) {
      if (!keepsDisk) nodes.delete(host);
      components.forget?.(host, { keepsDisk });
    },
  };
}

/** Time to hash, inflate and write one layer, ms. */
function unpackMs({ bytes, compressedBytes }: SimLayer): number {
  return compressedBytes * COST.hashMsPerByte + bytes * Math.max(COST.inflateMsPerByte, COST.unpackDiskMsPerByte);
}
