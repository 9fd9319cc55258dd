import { WARM, type WorkCost } from '../cost-model.ts';
import type { Timeline } from '../engine/timeline.ts';
import { bytesPerMs, type Scenario } from '../scenario/scenario.ts';
import { createFairNetwork, type FairNetwork, type Link, type Transfer } from './fair-share.ts';
import { type ByteSource, Host, MESSAGE_KINDS, type MessageKind, type Route, type Zone, zoneRoute } from './host.ts';
import { type Machine, machinesOf } from './machine.ts';
import { Delivery } from './message.ts';
import { type Awaiting, Move } from './move.ts';
import { groupsOf, placesOf } from './places.ts';
import { createRegistry, type Registry } from './registry.ts';

/** A transfer that failed because one of its ends died. */
export type Ended = 'done' | 'lost';

/** The modelled cluster: nodes, zones, links, the registry; moves bytes and messages, and counts them. */
export interface World {
  readonly timeline: Timeline;
  readonly network: FairNetwork;
  readonly nodes: readonly Host[];
  readonly zones: readonly Zone[];
  readonly registry: Registry;
  readonly cost: WorkCost;
  /** A host beside the nodes, e.g. a seed peer; it hangs on the core. */
  addHost(name: string, init: { upMbitPerS: number; downMbitPerS: number; cores: number }): Host;
  /** Which hosts are up, by their numbers: looking at many of them touches none. */
  readonly running: readonly boolean[];
  /** One way between two hosts, ms. */
  latencyMs(from: Host, to: Host): number;
  /**
   * Moves bytes. `awaiting` is told when the last one arrived, or when either end died. Answers how to give it up.
   */
  move(from: Host, to: Host, bytes: number, source: ByteSource, awaiting: Awaiting): Transfer;
  /**
   * A message: `arrived` is called at the receiver once its processors took it in, `refused` at the sender when the
   * receiver is not up by then.
   */
  send(from: Host, to: Host, kind: MessageKind, init: MessageInit): void;
  /** Counts a message that leaves after `delayMs`, and what both ends do for it; answers the ms until it was taken in. */
  post(from: Host, to: Host, kind: MessageKind, init: { bytes: number; delayMs: number }): number;
  /** Puts work behind what a host's processors have; answers the ms until it is done. */
  occupy(host: Host, ms: number): number;
  /** Work for a host's processors. */
  work(host: Host, ms: number, done: () => void): void;
  /** A container of the host works for so long, `cores` processors of it; where hosts share them, it takes longer. */
  think(host: Host, ms: number, init: { cores: number; done: () => void }): void;
  /** The host is gone, with everything under way from and to it. */
  kill(host: Host): void;
  revive(host: Host): void;
  readonly counters: Counters;
}

/** A message: when it leaves, and what becomes of it. */
export interface MessageInit {
  readonly bytes: number;
  /** It leaves after so long, ms. */
  readonly delayMs?: number;
  readonly arrived: () => void;
  readonly refused?: () => void;
}

/** What was counted. */
export interface Counters {
  readonly bytes: Record<ByteSource, number>;
  readonly messages: Record<MessageKind, number>;
  messageBytes: number;
  crossZoneBytes: number;
  requestsAtRegistry: number;
}

/** The cluster of a scenario, and what its daemons' work costs. */
export function createWorld(scenario: Scenario, timeline: Timeline, cost: WorkCost = WARM): World {
  return new Cluster(scenario, timeline, cost);
}

class Cluster implements World {
  readonly timeline: Timeline;
  readonly network: FairNetwork;
  readonly nodes: readonly Host[];
  readonly zones: readonly Zone[];
  readonly registry: Registry;
  readonly cost: WorkCost;
  readonly counters: Counters = {
    bytes: { registry: 0, seed: 0, neighbour: 0 },
    messages: Object.fromEntries(MESSAGE_KINDS.map((kind) => [kind, 0])) as Record<MessageKind, number>,
    messageBytes: 0,
    crossZoneBytes: 0,
    requestsAtRegistry: 0,
  };
  readonly #core: Zone = {
    name: 'core',
    parent: undefined,
    depth: 0,
    up: undefined,
    down: undefined,
    latencyMs: 0,
    index: 0,
    routes: [],
  };
  readonly running: boolean[] = [];
  #hosts = 0;

  constructor(scenario: Scenario, timeline: Timeline, cost: WorkCost) {
    this.timeline = timeline;
    this.cost = cost;
    this.network = createFairNetwork({ nowMs: () => timeline.nowMs() });
    timeline.attach(this.network);
    this.zones = this.#makeZones(scenario);
    this.nodes = this.#makeNodes(scenario);
    const { egressMbitPerS, latencyMs, requestsPerS } = scenario.registry;
    const host = this.addHost('registry', { upMbitPerS: egressMbitPerS, downMbitPerS: egressMbitPerS, cores: 1e6 });
    this.registry = createRegistry(this, { host, latencyMs, requestsPerS });
  }

  addHost(name: string, init: { upMbitPerS: number; downMbitPerS: number; cores: number }): Host {
    return this.#host(name, this.#core, { ...init, latencyMs: 0 });
  }

  latencyMs(from: Host, to: Host): number {
    return from.latencyMs + this.#route(from.zone, to.zone).latencyMs + to.latencyMs;
  }

  move(from: Host, to: Host, bytes: number, source: ByteSource, awaiting: Awaiting): Transfer {
    const { links, crossesZones: isFar } = this.#route(from.zone, to.zone);
    const path = links.length === 0 ? [from.up, to.down] : [from.up, ...links, to.down];
    const move = new Move(this.network, this.counters, { path, bytes, from, source, awaiting, isFar });
    this.network.begin(move);
    return move;
  }

  send(from: Host, to: Host, kind: MessageKind, init: MessageInit): void {
    const { bytes, delayMs = 0, arrived, refused } = init;
    const ms = this.post(from, to, kind, { bytes, delayMs });
    this.timeline.set(new Delivery(this, { from, to, arrived, refused }), ms);
  }

  post(from: Host, to: Host, kind: MessageKind, { bytes, delayMs }: { bytes: number; delayMs: number }): number {
    this.counters.messages[kind] += 1;
    this.counters.messageBytes += bytes;
    from.messagesOut += 1;
    const latencyMs = this.latencyMs(from, to);
    const wireMs = bytes / Math.min(from.up.bytesPerMs, to.down.bytesPerMs);
    // The receiver's processors are put behind what they have when the message leaves: one event instead of two.
    const thereMs = to.isUp ? this.occupy(to, this.cost.messageMs) : 0;
    return delayMs + this.occupy(from, this.cost.messageMs) + latencyMs + wireMs + thereMs;
  }

  work(host: Host, ms: number, done: () => void): void {
    const { life } = host;
    this.timeline.after(this.occupy(host, ms), () => {
      if (host.isUp && host.life === life) done();
    });
  }

  kill(host: Host): void {
    host.isUp = false;
    host.life += 1;
    host.busyUntilMs = 0;
    host.machine?.drop(host);
    for (const flow of this.network.flowsOn([host.up, host.down])) if (flow instanceof Move) flow.lose();
  }

  revive(host: Host): void {
    host.isUp = true;
  }

  /** One job takes its time, many share the cores. */
  occupy(host: Host, ms: number): number {
    if (host.machine !== undefined) return host.machine.occupy(ms);
    const nowMs = this.timeline.nowMs();
    const begin = Math.max(nowMs, host.busyUntilMs);
    host.busyUntilMs = begin + ms / host.cores;
    return begin - nowMs + ms / Math.min(1, host.cores);
  }

  think(host: Host, ms: number, init: { cores: number; done: () => void }): void {
    if (host.machine === undefined) this.timeline.after(ms, init.done);
    else host.machine.work(host, ms, init);
  }

  #route(from: Zone, to: Zone): Route {
    const known = from.routes[to.index];
    if (known !== undefined) return known;
    const route = zoneRoute(from, to);
    from.routes[to.index] = route;
    return route;
  }

  #makeZones({ zone }: Scenario): Zone[] {
    const made = new Map<string, Zone>();
    const make = (name: string): Zone => {
      const known = made.get(name);
      if (known !== undefined) return known;
      const spec = zone[name] as Scenario['zone'][string];
      const parent = spec.parent === undefined ? this.#core : make(spec.parent);
      const link = (way: string, mbit: number | undefined): Link | undefined =>
        mbit === undefined ? undefined : this.network.link(`${name} ${way}`, bytesPerMs(mbit));
      const own: Zone = {
        name,
        parent,
        depth: parent.depth + 1,
        up: link('up', spec.upMbitPerS),
        down: link('down', spec.downMbitPerS),
        latencyMs: spec.latencyMs,
        index: made.size + 1,
        routes: [],
      };
      made.set(name, own);
      return own;
    };
    for (const name of Object.keys(zone)) make(name);
    return [...made.values()];
  }

  #makeNodes({ nodes, zone }: Scenario): Host[] {
    const places = placesOf(this.zones, zone, nodes.count, this.#core);
    const groups = groupsOf(nodes);
    const machines = machinesOf(this.timeline, places, nodes);
    return places.map((place, at) => {
      const { upMbitPerS = nodes.upMbitPerS, downMbitPerS = nodes.downMbitPerS } = groups[at] ?? {};
      return this.#host(`node ${at}`, place, { ...nodes, upMbitPerS, downMbitPerS, machine: machines[at] });
    });
  }

  #host(
    name: string,
    zone: Zone,
    init: { upMbitPerS: number; downMbitPerS: number; latencyMs: number; cores: number; machine?: Machine | undefined },
  ): Host {
    const index = this.#hosts;
    this.#hosts += 1;
    return new Host({
      index,
      running: this.running,
      name,
      zone,
      up: this.network.link(`${name} up`, bytesPerMs(init.upMbitPerS)),
      down: this.network.link(`${name} down`, bytesPerMs(init.downMbitPerS)),
      latencyMs: init.latencyMs,
      cores: init.cores,
      machine: init.machine,
    });
  }
}
