import { MESSAGE_BYTES } from '../cost-model.ts';
import type { Host } from '../network/host.ts';
import type { Ended } from '../network/world.ts';
import type { SimLayer } from '../workload/image.ts';
import type { Policy, PolicyComponents } from './policy.ts';
import { createWholeImagePolicy } from './whole-image.ts';

/** Peers of which the record of a layer is looked for: the k of a Kademlia lookup would be 20, the first answer wins. */
const RECORD_KEEPERS = 3;
/** Failed or missing peers before containerd goes to the registry: Spegel's `--mirror-resolve-retries`. */
const RETRIES = 3;
/** Time a node needs to notice a finished layer and announce it, ms: containerd's event, then a `provide`. */
const ANNOUNCE_MS = 100;

/**
 * Whole layers from peers that have them (Spegel 0.7, its README, flags and pkg/routing, pkg/registry): a layer is
 * looked up in a DHT, served by one peer that has all of it, else pulled from the registry; it is announced when it is
 * complete. Simplified: the lookup takes one round trip to a keeper of the record and ends at `resolve_ms` when nobody
 * has it; the hedge between peers before headers arrive is left out; a transfer that breaks goes on elsewhere from the
 * byte it came to, as Spegel does.
 */
export function createWholeLayerPolicy({ world, scenario, random, blobs }: PolicyComponents): Policy {
  const { resolveMs, layersAtOnce } = scenario.wholeLayer;
  const { nodes, timeline } = world;
  /** Who announced a layer, by its number. */
  const providers: Host[][] = Array.from({ length: blobs }, () => []);

  function fromRegistry(host: Host, bytes: number, done: () => void): void {
    world.registry.fetch(host, bytes, (how) => how === 'done' && done());
  }

  function fromPeers(host: Host, layer: SimLayer, init: { left: number; tries: number; done: () => void }): void {
    const { left, tries, done } = init;
    const holders = (providers[layer.blob] ?? []).filter((each) => each !== host && each.isUp);
    const holder = holders[random.below(Math.max(1, holders.length))];
    if (holder === undefined || tries >= RETRIES) {
      timeline.after(holder === undefined ? resolveMs : 0, () => host.isUp && fromRegistry(host, left, done));
      return;
    }
    const elsewhere = (rest: number): void => {
      if (host.isUp) fromPeers(host, layer, { left: rest, tries: tries + 1, done });
    };
    const arrived = (): void => {
      const moveOver = (how: Ended): void => {
        if (how === 'done') done();
        else elsewhere(left - transfer.moved());
      };
      const transfer = world.move(holder, host, left, 'neighbour', { moveOver });
    };
    world.send(host, holder, 'request', { bytes: MESSAGE_BYTES.request, arrived, refused: () => elsewhere(left) });
  }

  function download(host: Host, layer: SimLayer, done: () => void): void {
    const { life } = host;
    const arrived = (): void => {
      done();
      timeline.after(ANNOUNCE_MS, () => {
        if (!host.isUp || host.life !== life) return;
        for (let copy = 0; copy < Math.min(RECORD_KEEPERS, nodes.length - 1); copy += 1) {
          const keeper = nodes[random.below(nodes.length)] as Host;
          world.send(host, keeper, 'announce', { bytes: MESSAGE_BYTES.announce, arrived: () => {} });
        }
        providers[layer.blob]?.push(host);
      });
    };
    const keeper = nodes[(layer.blob * 7_919) % nodes.length] as Host;
    if (keeper === host || !keeper.isUp) {
      fromPeers(host, layer, { left: layer.compressedBytes, tries: 0, done: arrived });
      return;
    }
    const search = (): void => {
      if (host.isUp && host.life === life) {
        fromPeers(host, layer, { left: layer.compressedBytes, tries: 0, done: arrived });
      }
    };
    world.send(host, keeper, 'find', {
      bytes: MESSAGE_BYTES.find,
      arrived: () => timeline.after(world.latencyMs(keeper, host), search),
      refused: search,
    });
  }

  function forget(host: Host, { keepsDisk }: { keepsDisk: boolean }): void {
    if (keepsDisk) return;
    for (const holders of providers) {
      const at = holders.indexOf(host);
      if (at !== -1) holders.splice(at, 1);
    }
  }

  return createWholeImagePolicy({ world, download, forget }, { layersAtOnce, blobs });
}
