import type { Clock } from '../../../src/clock.ts';
import { type ClaimLedger, createClaimLedger } from '../../../src/core/policy/claim-ledger.ts';
import { COST, MESSAGE_BYTES } from '../../cost-model.ts';
import type { Random } from '../../engine/random.ts';
import type { Host } from '../../network/host.ts';
import type { World } from '../../network/world.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import type { SimImage } from '../../workload/image.ts';
import { unitChunks } from '../../workload/units.ts';
import { ClaimMessage, type Coordinators, GRANTED, SettleMessage } from './claim-message.ts';
import type { ClaimReply, Place, Region } from './claim-reply.ts';
import type { ShoalNode } from './node.ts';
import { coordinatorOf, keeperOf } from './placement.ts';
import { DIRECTORY_LIMITS } from './transport-limits.ts';

/**
 * What the nodes tell each other, as the daemon's peer directory does it: records of announced chunks at the peers
 * closest to their keys, have-maps, claims at the coordinators of a region. Messages cost time on the wire and at both
 * ends; the records of a chunk are the same at all of its keepers.
 */
export interface Swarm {
  readonly world: World;
  readonly scenario: Scenario;
  readonly clock: Clock;
  readonly nodes: readonly ShoalNode[];
  readonly random: Random;
  /** Chunks that travel as one. */
  readonly unit: number;
  nodeOf(host: Host): ShoalNode;
  /** Rows in which a content lies, over all layers. */
  placesOf(content: number): readonly Place[];
  rowsOf(blob: number): number;
  /** A peer that is not `own`, the own zone's more likely; undefined when there is none. */
  randomPeer(own: ShoalNode): ShoalNode | undefined;
  /** Who announced the content, as the keepers of its record answer within so many ms. */
  find(own: ShoalNode, content: number, mostMs: number, answered: (holders: readonly ShoalNode[]) => void): void;
  haveMap(own: ShoalNode, of: ShoalNode, blob: number, answered: (bits: Uint8Array | undefined) => void): void;
  /** One answer per content; granted all when no coordinator answers. Sent after `delayMs`. */
  claim(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    init: { delayMs: number; answered: (replies: readonly ClaimReply[]) => void },
  ): void;
  settle(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    init: { delayMs: number; outcome: 'held' | 'failed' },
  ): void;
  announce(own: ShoalNode, contents: readonly number[]): void;
  /** A node is gone: coordinators forget it. */
  forget(node: ShoalNode): void;
}

/** Builds the swarm; `makeNode` is called once per host. */
export function createSwarm(
  components: { world: World; scenario: Scenario; images: readonly SimImage[]; random: Random },
  init: { contents: number; blobs: number; makeNode: (swarm: Swarm, host: Host) => ShoalNode },
): Swarm {
  return new ModelledSwarm(components, init);
}

class ModelledSwarm implements Swarm, Coordinators {
  readonly world: World;
  readonly scenario: Scenario;
  readonly clock: Clock;
  readonly nodes: readonly ShoalNode[];
  readonly random: Random;
  readonly unit: number;
  readonly #byHost = new Map<Host, ShoalNode>();
  readonly #byId: ShoalNode[] = [];
  readonly #places: Place[][];
  readonly #rows: number[];
  /** Chunks that each content stands for. */
  readonly #counts: Uint16Array;
  readonly #zoneMembers = new Map<unknown, ShoalNode[]>();
  /** First announcers of each content: keepers refuse later ones. */
  readonly #records: ShoalNode[][];
  readonly #ledgers = new Map<ShoalNode, ClaimLedger<number>>();

  constructor(
    components: { world: World; scenario: Scenario; images: readonly SimImage[]; random: Random },
    init: { contents: number; blobs: number; makeNode: (swarm: Swarm, host: Host) => ShoalNode },
  ) {
    this.world = components.world;
    this.scenario = components.scenario;
    this.random = components.random;
    this.clock = components.world.timeline.clock;
    this.unit = unitChunks(components.scenario);
    this.#counts = new Uint16Array(init.contents).fill(1);
    this.#places = Array.from({ length: init.contents }, () => []);
    this.#records = Array.from({ length: init.contents }, () => []);
    this.#rows = new Array<number>(init.blobs).fill(0);
    for (const image of components.images) this.#addImage(image);
    this.nodes = this.world.nodes.map((host) => {
      const node = init.makeNode(this, host);
      this.#byHost.set(host, node);
      this.#byId[node.id] = node;
      const members = this.#zoneMembers.get(host.zone) ?? [];
      this.#zoneMembers.set(host.zone, members);
      members.push(node);
      return node;
    });
  }

  nodeOf(host: Host): ShoalNode {
    return this.#byHost.get(host) as ShoalNode;
  }

  placesOf(content: number): readonly Place[] {
    return this.#places[content] as Place[];
  }

  rowsOf(blob: number): number {
    return this.#rows[blob] as number;
  }

  randomPeer(own: ShoalNode): ShoalNode | undefined {
    const near = this.#zoneMembers.get(own.host.zone) ?? [];
    const from = near.length > 1 ? near : this.nodes;
    if (from.length < 2) return undefined;
    for (let tries = 0; tries < 8; tries += 1) {
      const peer = from[this.random.below(from.length)] as ShoalNode;
      if (peer !== own && peer.host.isUp) return peer;
    }
    return undefined;
  }

  find(own: ShoalNode, content: number, mostMs: number, answered: (holders: readonly ShoalNode[]) => void): void {
    const asked = Math.min(DIRECTORY_LIMITS.askedMax, this.scenario.shoal.replication + DIRECTORY_LIMITS.askedBeyond);
    const count = this.#counts[content] as number;
    let firstMs = Number.POSITIVE_INFINITY;
    let lastMs = 0;
    for (let keeper = 0; keeper < asked; keeper += 1) {
      const peer = keeperOf(this.nodes, content, keeper);
      if (!peer.host.isUp) continue;
      const ms = peer === own ? 0 : this.#ask(own, peer, 'find', count);
      firstMs = Math.min(firstMs, ms);
      lastMs = Math.max(lastMs, ms);
    }
    const { life } = own.host;
    this.world.timeline.after(Math.min(lastMs, mostMs), () => {
      if (!own.host.isUp || own.host.life !== life) return;
      if (firstMs > mostMs) answered([]);
      else answered((this.#records[content] as ShoalNode[]).filter((node) => node !== own && node.host.isUp));
    });
  }

  haveMap(own: ShoalNode, of: ShoalNode, blob: number, answered: (bits: Uint8Array | undefined) => void): void {
    const { life } = own.host;
    const ms = of.host.isUp ? this.#ask(own, of, 'have', 1) : DIRECTORY_LIMITS.haveTimeoutMs;
    this.world.timeline.after(ms, () => {
      if (own.host.isUp && own.host.life === life) answered(of.host.isUp ? of.haveMap(blob) : undefined);
    });
  }

  claim(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    { delayMs, answered }: { delayMs: number; answered: (replies: readonly ClaimReply[]) => void },
  ): void {
    const coordinator = coordinatorOf(this.nodes, region);
    if (coordinator === undefined) {
      answered(contents.map(() => GRANTED));
      return;
    }
    const { timeline } = this.world;
    const message = new ClaimMessage(this, { own, coordinator, contents }, answered);
    if (coordinator !== own) {
      const bytes = this.#claimBytes(contents);
      timeline.set(message, this.world.post(own.host, coordinator.host, 'claim', { bytes, delayMs }));
    } else if (delayMs === 0) message.decide();
    else timeline.set(message, delayMs);
  }

  settle(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    { delayMs, outcome }: { delayMs: number; outcome: 'held' | 'failed' },
  ): void {
    const coordinator = coordinatorOf(this.nodes, region);
    if (coordinator === undefined) return;
    const message = new SettleMessage(this, { own, coordinator, contents }, outcome);
    if (coordinator === own) {
      message.settle();
      return;
    }
    const bytes = this.#claimBytes(contents);
    const ms = this.world.post(own.host, coordinator.host, 'settle', { bytes, delayMs });
    this.world.timeline.set(message, ms);
  }

  /** Each keeper gets one batch; records are there at once, since nobody could tell the difference of a round trip. */
  announce(own: ShoalNode, contents: readonly number[]): void {
    const { counters } = this.world;
    const keepers = new Map<ShoalNode, number>();
    for (const content of contents) {
      const records = this.#records[content] as ShoalNode[];
      if (records.length < DIRECTORY_LIMITS.providersPerKey && !records.includes(own)) records.push(own);
      for (let copy = 0; copy < this.scenario.shoal.replication; copy += 1) {
        const keeper = keeperOf(this.nodes, content, copy);
        keepers.set(keeper, (keepers.get(keeper) ?? 0) + (this.#counts[content] as number));
      }
    }
    for (const [keeper, keys] of keepers) {
      if (keeper === own) continue;
      counters.messages.announce += 1;
      counters.messageBytes += MESSAGE_BYTES.announce + keys * MESSAGE_BYTES.perKey;
      own.host.messagesOut += 1;
      keeper.host.messagesIn += 1;
      this.#occupy(own.host, COST.messageMs + keys * COST.announceSendMs);
      this.#occupy(keeper.host, COST.messageMs + keys * COST.announceReceiveMs);
    }
  }

  ledgerOf(node: ShoalNode): ClaimLedger<number> {
    const known = this.#ledgers.get(node);
    if (known !== undefined) return known;
    const made = createClaimLedger<number>({ clock: this.clock });
    this.#ledgers.set(node, made);
    return made;
  }

  node(id: number): ShoalNode | undefined {
    return this.#byId[id];
  }

  chunksOf(content: number): number {
    return this.#counts[content] as number;
  }

  forget(node: ShoalNode): void {
    this.#ledgers.delete(node);
    for (const ledger of this.#ledgers.values()) ledger.forget(node.id);
    for (const records of this.#records) {
      const at = records.indexOf(node);
      if (at !== -1) records.splice(at, 1);
    }
  }

  #addImage(image: SimImage): void {
    for (const { blob, first, end } of image.layers) {
      this.#rows[blob] = end - first;
      for (const chunk of image.chunks.slice(first, end)) {
        this.#counts[chunk.content] = chunk.count;
        const places = this.#places[chunk.content] as Place[];
        const isKnown = places.some((place) => place.blob === blob && place.row === chunk.row);
        if (!isKnown) places.push({ blob, row: chunk.row });
      }
    }
  }

  #claimBytes(contents: readonly number[]): number {
    let keys = 0;
    for (const content of contents) keys += this.#counts[content] as number;
    return MESSAGE_BYTES.claim + keys * MESSAGE_BYTES.perKey;
  }

  /** A question whose answer needs no turn of its own: ms until it is back, the peer's processors included. */
  #ask(own: ShoalNode, peer: ShoalNode, kind: 'find' | 'have', count: number): number {
    const { counters } = this.world;
    counters.messages[kind] += count;
    counters.messageBytes += count * MESSAGE_BYTES[kind];
    own.host.messagesOut += count;
    peer.host.messagesIn += count;
    const here = this.#occupy(own.host, count * COST.messageMs);
    const there = this.#occupy(peer.host, count * COST.messageMs);
    return here + 2 * this.world.latencyMs(own.host, peer.host) + there;
  }

  /** Ms until a host has done `ms` of work that is put behind what it has. */
  #occupy(host: Host, ms: number): number {
    const nowMs = this.clock.nowMs();
    const begin = Math.max(nowMs, host.busyUntilMs);
    host.busyUntilMs = begin + ms / host.cores;
    return begin - nowMs + ms;
  }
}
