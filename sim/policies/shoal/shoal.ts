import { restOrder } from '../../../src/core/policy/prefetch-order.ts';
import { createReadahead, type Readahead } from '../../../src/core/policy/readahead.ts';
import type { Host } from '../../network/host.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';
import { runReads } from '../../workload/reader.ts';
import type { Policy, PolicyComponents, Start } from '../policy.ts';
import { ShoalNode } from './node.ts';
import { createSwarm } from './swarm.ts';

/** Bytes a device has under way ahead of its readers, as the daemon's readahead driver has it. */
const READAHEAD_BUDGET_BYTES = 32 * 1024 * 1024;
/** Bytes of the marked part of an image under way, as the daemon's prefetcher has it: four pieces of 4 MiB. */
const HINTS_BUDGET_BYTES = 16 * 1024 * 1024;
/** Chunks of the background fetch under way. */
const BACKGROUND_PARALLEL = 8;

/**
 * The daemon: lazy reads of chunks, readahead, neighbours first, claims before the registry. `claims` false: who finds
 * no neighbour goes straight to the registry.
 */
export function createShoalPolicy(components: PolicyComponents, init: { claims: boolean }): Policy {
  const { scenario, contents } = components;
  const swarm = createSwarm(components, {
    ...components,
    makeNode: (all, host) => new ShoalNode(all, host, { contents, claims: init.claims }),
  });
  const settings = scenario.shoal;
  const ends = new Map<Host, (() => void)[]>();

  function background(node: ShoalNode, image: SimImage): void {
    const { life } = node.host;
    const order = image.layers.flatMap(({ first, end }) => inOwnOrder(node, image, range(first, end)));
    const next = (): void => {
      if (node.host.life !== life) return;
      const at = order.shift();
      if (at === undefined) return;
      const chunk = image.chunks[at] as SimImage['chunks'][number];
      const layer = image.layers[chunk.layer] as SimLayer;
      node.need({ chunk, layer }, 'prefetch', () => swarm.world.timeline.after(0, next));
    };
    for (let lane = 0; lane < BACKGROUND_PARALLEL; lane += 1) next();
  }

  /** What the image marks, so many bytes at a time. */
  function fetchMarked(node: ShoalNode, image: SimImage): void {
    const { life } = node.host;
    const marked = image.files.flat().sort((a, b) => a - b);
    const byLayer = image.layers.map(({ first, end }) => marked.filter((at) => at >= first && at < end));
    const parts = settings.hintOrder === 'mixed' ? [marked] : byLayer;
    const order = parts.flatMap((part) => inOwnOrder(node, image, part));
    let at = 0;
    let underWay = 0;
    const more = (): void => {
      while (node.host.life === life && at < order.length && underWay < HINTS_BUDGET_BYTES) {
        const chunk = image.chunks[order[at] as number] as SimImage['chunks'][number];
        at += 1;
        if (node.has(chunk.content)) continue;
        underWay += chunk.bytes;
        node.need({ chunk, layer: image.layers[chunk.layer] as SimLayer }, 'prefetch', () => {
          underWay -= chunk.bytes;
          more();
        });
      }
    };
    more();
  }

  return {
    start({ host, image, plan, ready }: Start) {
      const node = swarm.nodeOf(host);
      if (settings.hints) fetchMarked(node, image);
      const devices = image.layers.map((layer) => new Device(node, image, layer));
      const stop = runReads(swarm.world.timeline, plan, {
        read(at, answered) {
          const chunk = image.chunks[at] as SimImage['chunks'][number];
          const device = devices[chunk.layer] as Device;
          if (settings.readahead && !node.has(chunk.content)) device.onDemand(at);
          node.need({ chunk, layer: device.layer }, 'demand', answered);
        },
        done() {
          ready();
          if (settings.background) background(node, image);
        },
      });
      ends.set(host, [...(ends.get(host) ?? []), stop]);
    },
    died(host) {
      for (const stop of ends.get(host) ?? []) stop();
      ends.delete(host);
      const node = swarm.nodeOf(host);
      node.died();
      swarm.forget(node);
    },
    returned(host, { keepsDisk }) {
      if (!keepsDisk) swarm.nodeOf(host).wipe();
    },
  };
}

/** One layer's device on one node: where its readers are, and what is fetched ahead of them. */
class Device {
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

/** Chunk positions in the order in which the daemon's policy fetches pieces nobody waits for: each node in another. */
function inOwnOrder(node: ShoalNode, image: SimImage, positions: readonly number[]): number[] {
  const starts: number[] = [];
  let deviceSize = 0;
  for (const at of positions) {
    starts.push(deviceSize);
    deviceSize += (image.chunks[at] as SimImage['chunks'][number]).bytes;
  }
  const seed = `${node.id}/${image.name}/${positions[0]}`;
  const ordered: number[] = [];
  for (const { offset, length } of restOrder({ deviceSize, hintBytes: 0, recorded: [], seed })) {
    let first = 0;
    let last = starts.length;
    while (first < last) {
      const middle = (first + last) >>> 1;
      if ((starts[middle] as number) < offset) first = middle + 1;
      else last = middle;
    }
    for (let at = first; at < starts.length && (starts[at] as number) < offset + length; at += 1) {
      ordered.push(positions[at] as number);
    }
  }
  return ordered;
}

function range(first: number, end: number): number[] {
  return Array.from({ length: end - first }, (_, at) => first + at);
}
