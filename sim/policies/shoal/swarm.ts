import type { Clock } from '../../../src/clock.ts';
import { type ClaimLedger, createClaimLedger } from '../../../src/core/policy/claim-ledger.ts';
import type { UploadLimits } from '../../../src/core/policy/upload-queue.ts';
import { COST, MESSAGE_BYTES } from '../../cost-model.ts';
import type { Random } from '../../engine/random.ts';
import type { Host } from '../../network/host.ts';
import type { World } from '../../network/world.ts';
import type { Scenario } from '../../scenario/scenario.ts';
import type { SimImage } from '../../workload/image.ts';
import { unitChunks } from '../../workload/units.ts';
import { ClaimMessage, type Coordinators, GRANTED, SettleMessage } from './claim-message.ts';
import type { Claimer, Region } from './claim-reply.ts';
import { Holdings } from './holdings.ts';
import type { ShoalNode } from './node.ts';
import { coordinatorOf, keeperOf } from './placement.ts';
import { uploadLimitsFor } from './server.ts';
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
  /** Of each node's upload queue. */
  readonly uploadLimits: UploadLimits;
  nodeOf(host: Host): ShoalNode;
  readonly holdings: Holdings;
  /** Content of each row. */
  contentsOf(blob: number): Uint32Array;
  /** A peer that is not `own`, the own zone's more likely; undefined when there is none. */
  randomPeer(own: ShoalNode): ShoalNode | undefined;
  /** Who announced the content, as the keepers of its record answer within so many ms. */
  find(own: ShoalNode, content: number, mostMs: number, answered: (holders: readonly ShoalNode[]) => void): void;
  /** Asks a node for its have-map: ms until the answer is there, or is not waited for any longer. */
  askHaveMap(own: ShoalNode, of: ShoalNode): number;
  /** One answer per content; granted all when no coordinator answers. Sent after `delayMs`. */
  claim(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    init: { delayMs: number; claimers: readonly Claimer[] },
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
  init: { contents: number; makeNode: (swarm: Swarm, host: Host) => ShoalNode },
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
  readonly uploadLimits: UploadLimits;
  readonly #byHost = new Map<Host, ShoalNode>();
  readonly holdings: Holdings;
  /** By blob: content of each row. */
  readonly #contents: Uint32Array[] = [];
  /** Chunks that each content stands for. */
  readonly #counts: Uint16Array;
  readonly #zoneMembers = new Map<unknown, ShoalNode[]>();
  /** First announcers of each content: keepers refuse later ones. */
  readonly #records: number[][];
  /** Keys of the batch that is being announced, by the node that keeps them; otherwise zeros. */
  readonly #keysOf: Uint32Array;
  readonly #ledgers = new Map<ShoalNode, ClaimLedger<number>>();

  constructor(
    components: { world: World; scenario: Scenario; images: readonly SimImage[]; random: Random },
    init: { contents: number; makeNode: (swarm: Swarm, host: Host) => ShoalNode },
  ) {
    this.world = components.world;
    this.scenario = components.scenario;
    this.random = components.random;
    this.clock = components.world.timeline.clock;
    this.unit = unitChunks(components.scenario);
    this.uploadLimits = uploadLimitsFor(this.unit);
    this.#counts = new Uint16Array(init.contents).fill(1);
    this.#records = Array.from({ length: init.contents }, () => []);
    this.#keysOf = new Uint32Array(this.world.nodes.length);
    this.holdings = new Holdings({ nodes: this.world.nodes.length, contents: init.contents });
    for (const image of components.images) this.#addImage(image);
    this.nodes = this.world.nodes.map((host) => {
      const node = init.makeNode(this, host);
      this.#byHost.set(host, node);
      const members = this.#zoneMembers.get(host.zone) ?? [];
      this.#zoneMembers.set(host.zone, members);
      members.push(node);
      return node;
    });
  }

  nodeOf(host: Host): ShoalNode {
    return this.#byHost.get(host) as ShoalNode;
  }

  contentsOf(blob: number): Uint32Array {
    return this.#contents[blob] as Uint32Array;
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
      if (firstMs > mostMs) {
        answered([]);
        return;
      }
      const { running } = this.world;
      const holders = (this.#records[content] as number[]).filter((id) => id !== own.id && running[id]);
      answered(holders.map((id) => this.nodes[id] as ShoalNode));
    });
  }

  askHaveMap(own: ShoalNode, of: ShoalNode): number {
    return of.host.isUp ? this.#ask(own, of, 'have', 1) : DIRECTORY_LIMITS.haveTimeoutMs;
  }

  claim(
    own: ShoalNode,
    region: Region,
    contents: readonly number[],
    { delayMs, claimers }: { delayMs: number; claimers: readonly Claimer[] },
  ): void {
    const coordinator = coordinatorOf(this.nodes, this.world.running, region);
    if (coordinator === undefined) {
      for (const claimer of claimers) claimer.replied(GRANTED);
      return;
    }
    const { timeline } = this.world;
    const message = new ClaimMessage(this, { own, coordinator, contents }, claimers);
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
    const coordinator = coordinatorOf(this.nodes, this.world.running, region);
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
    const keys = this.#keysOf;
    const keepers: ShoalNode[] = [];
    for (const content of contents) {
      const records = this.#records[content] as number[];
      if (records.length < DIRECTORY_LIMITS.providersPerKey && !records.includes(own.id)) records.push(own.id);
      for (let copy = 0; copy < this.scenario.shoal.replication; copy += 1) {
        const keeper = keeperOf(this.nodes, content, copy);
        const known = keys[keeper.id] as number;
        if (known === 0) keepers.push(keeper);
        keys[keeper.id] = known + (this.#counts[content] as number);
      }
    }
    for (const keeper of keepers) {
      const count = keys[keeper.id] as number;
      keys[keeper.id] = 0;
      if (keeper === own) continue;
      counters.messages.announce += 1;
      counters.messageBytes += MESSAGE_BYTES.announce + count * MESSAGE_BYTES.perKey;
      own.host.messagesOut += 1;
      keeper.host.messagesIn += 1;
      this.#occupy(own.host, this.world.cost.messageMs + count * COST.announceSendMs);
      this.#occupy(keeper.host, this.world.cost.messageMs + count * COST.announceReceiveMs);
    }
  }

  ledgerOf(node: ShoalNode): ClaimLedger<number> {
    const known = this.#ledgers.get(node);
    if (known !== undefined) return known;
    const made = createClaimLedger<number>({ clock: this.clock });
    this.#ledgers.set(node, made);
    return made;
  }

  runningNode(id: number): ShoalNode | undefined {
    return this.world.running[id] === true ? this.nodes[id] : undefined;
  }

  chunksOf(content: number): number {
    return this.#counts[content] as number;
  }

  forget(node: ShoalNode): void {
    this.#ledgers.delete(node);
    for (const ledger of this.#ledgers.values()) ledger.forget(node.id);
    for (const records of this.#records) {
      const at = records.indexOf(node.id);
      if (at !== -1) records.splice(at, 1);
    }
  }

  #addImage(image: SimImage): void {
    for (const { blob, first, end } of image.layers) {
      const contents = new Uint32Array(end - first);
      this.#contents[blob] = contents;
      for (const { content, count, row } of image.chunks.slice(first, end)) {
        this.#counts[content] = count;
        contents[row] = content;
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
    const here = this.#occupy(own.host, count * this.world.cost.messageMs);
    const there = this.#occupy(peer.host, count * this.world.cost.messageMs);
    return here + 2 * this.world.latencyMs(own.host, peer.host) + there;
  }

  /** Ms until a host has done `ms` of work that is put behind what it has. */
  #occupy(host: Host, ms: number): number {
    if (host.machine !== undefined) return host.machine.occupy(ms);
    const nowMs = this.clock.nowMs();
    const begin = Math.max(nowMs, host.busyUntilMs);
    host.busyUntilMs = begin + ms / host.cores;
    return begin - nowMs + ms;
  }
}
