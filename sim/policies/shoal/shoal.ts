import { createStartPool } from '../../../src/core/policy/start-pool.ts';
import type { Host } from '../../network/host.ts';
import type { SimImage, SimLayer } from '../../workload/image.ts';
import { runReads } from '../../workload/reader.ts';
import type { Policy, PolicyComponents, Start } from '../policy.ts';
import { Device } from './device.ts';
import { chunksIn, inOwnOrder, layersOf, type Marked, markedOf } from './marked.ts';
import { ShoalNode } from './node.ts';
import { createSwarm } from './swarm.ts';

/** Pieces of the marked part of an image under way, as the daemon's prefetcher has it. */
const START_PARALLEL = 4;
/** Chunks of the background fetch under way. */
const BACKGROUND_PARALLEL = 8;

/**
 * The daemon: lazy reads of chunks, readahead, neighbours first, claims before the registry. `claims` false: who finds
 * no neighbour goes straight to the registry.
 */
export function createShoalPolicy(components: PolicyComponents, init: { claims: boolean }): Policy {
  const { scenario } = components;
  const swarm = createSwarm(components, {
    ...components,
    makeNode: (all, host) => new ShoalNode(all, host, { claims: init.claims }),
  });
  const settings = scenario.shoal;
  const ends = new Map<Host, (() => void)[]>();
  const marked = new Map(components.images.map((image) => [image, markedOf(image)]));
  const devices = new Map(
    components.images.map((image) => [image, settings.hints ? markedOf(image) : layersOf(image)]),
  );

  function background(node: ShoalNode, image: SimImage): void {
    const { life } = node.host;
    const order = image.layers.flatMap((layer) => inOwnOrder(node.host.name, image, layer));
    const next = (): void => {
      if (node.host.life !== life) return;
      const at = order.shift();
      if (at === undefined) return;
      const chunk = image.chunks[at] as SimImage['chunks'][number];
      const layer = image.layers[chunk.layer] as SimLayer;
      node.need({ chunk, layer }, 'prefetch', () => swarm.world.timeline.after(0, next));
    };
    for (let lane = 0; lane < Math.max(1, BACKGROUND_PARALLEL / swarm.unit); lane += 1) next();
  }

  /** What was fetched ahead of readers when the start was recorded. */
  function fetchAhead(node: ShoalNode, image: SimImage, positions: readonly number[]): void {
    for (const at of positions) {
      const chunk = image.chunks[at] as SimImage['chunks'][number];
      node.need({ chunk, layer: image.layers[chunk.layer] as SimLayer }, 'prefetch', () => {});
    }
  }

  /** What the image marks, a few pieces at a time, in the daemon's order; `layers`: as it was before there was one for all. */
  function fetchMarked(node: ShoalNode, image: SimImage): void {
    const { life } = node.host;
    const pools =
      settings.hintOrder === 'mixed' ? [createStartPool<Marked>()] : image.layers.map(() => createStartPool<Marked>());
    for (const [at, part] of (marked.get(image) ?? []).entries()) {
      const { bytes } = part;
      const seed = `${node.host.name} ${image.name} ${at}`;
      const plan = { deviceSize: bytes, hintBytes: bytes, recorded: [], seed, isShared: true };
      pools[settings.hintOrder === 'mixed' ? 0 : at]?.add(part, plan);
    }
    const next = (): void => {
      if (node.host.life !== life) return;
      while (pools.length > 0) {
        const piece = pools[0]?.next();
        if (piece === undefined) pools.shift();
        else if (fetchPiece(node, image, chunksIn(piece.layer, piece.run), next)) return;
      }
    };
    for (let lane = 0; lane < START_PARALLEL; lane += 1) next();
  }

  /** Gets these chunks, then calls back; false when all of them are there. */
  function fetchPiece(node: ShoalNode, image: SimImage, positions: readonly number[], done: () => void): boolean {
    let missing = 0;
    const got = (): void => {
      missing -= 1;
      if (missing === 0) done();
    };
    const wanted = positions.filter((at) => !node.has((image.chunks[at] as SimImage['chunks'][number]).content));
    missing = wanted.length;
    for (const at of wanted) {
      const chunk = image.chunks[at] as SimImage['chunks'][number];
      node.need({ chunk, layer: image.layers[chunk.layer] as SimLayer }, 'prefetch', got);
    }
    return wanted.length > 0;
  }

  return {
    start({ host, image, plan, ready }: Start) {
      const node = swarm.nodeOf(host);
      if (settings.hints) fetchMarked(node, image);
      const parts = devices.get(image) as readonly Marked[];
      const open = image.layers.map((layer, at) => new Device(node, image, { layer, part: parts[at] as Marked }));
      const stop = runReads(plan, {
        think: (ms, done) => swarm.world.think(host, ms, { cores: plan.cores, done }),
        read(at, answered) {
          const chunk = image.chunks[at] as SimImage['chunks'][number];
          const device = open[chunk.layer] as Device;
          if (image.reads.kind === 'trace') fetchAhead(node, image, image.reads.ahead.get(at) ?? []);
          else if (settings.readahead && !node.has(chunk.content)) device.onDemand(at);
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
