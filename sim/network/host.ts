import type { Link } from './fair-share.ts';
import type { Machine } from './machine.ts';

/** A zone, or the core when it has no parent: where nodes and other zones hang. */
export interface Zone {
  readonly name: string;
  readonly parent: Zone | undefined;
  readonly depth: number;
  /** Links to and from the parent; undefined where nothing limits. */
  readonly up: Link | undefined;
  readonly down: Link | undefined;
  /** One way to the parent, ms. */
  readonly latencyMs: number;
  /** Position among all zones, the core first. */
  readonly index: number;
  /** The way to each zone by its index, as far as it was asked for. */
  readonly routes: (Route | undefined)[];
}

/** Kinds of control messages that are counted. */
export const MESSAGE_KINDS = ['request', 'have', 'find', 'claim', 'settle', 'announce', 'schedule'] as const;

/** A kind of control message. */
export type MessageKind = (typeof MESSAGE_KINDS)[number];

/** Where bytes come from. */
export const BYTE_SOURCES = ['registry', 'seed', 'neighbour'] as const;

/** Where bytes come from. */
export type ByteSource = (typeof BYTE_SOURCES)[number];

/** Something with links and a place: a node, a seed peer, the registry. */
export class Host {
  readonly index: number;
  readonly name: string;
  readonly zone: Zone;
  readonly up: Link;
  readonly down: Link;
  readonly latencyMs: number;
  readonly cores: number;
  /** What it shares processors with other hosts on. */
  readonly machine: Machine | undefined;
  /** Which hosts are up, by their numbers. */
  readonly #running: boolean[];
  /** Bumped when it dies: what was under way before belongs to a former life. */
  life = 0;
  /** When its processors have done all they were given. */
  busyUntilMs = 0;
  /** Bytes served to others. */
  servedBytes = 0;
  messagesIn = 0;
  messagesOut = 0;

  constructor(init: {
    index: number;
    name: string;
    zone: Zone;
    up: Link;
    down: Link;
    latencyMs: number;
    cores: number;
    machine?: Machine | undefined;
    running: boolean[];
  }) {
    this.index = init.index;
    this.#running = init.running;
    this.#running[this.index] = true;
    this.name = init.name;
    this.zone = init.zone;
    this.up = init.up;
    this.down = init.down;
    this.latencyMs = init.latencyMs;
    this.cores = init.cores;
    this.machine = init.machine;
  }

  get isUp(): boolean {
    return this.#running[this.index] as boolean;
  }

  set isUp(isUp: boolean) {
    this.#running[this.index] = isUp;
  }
}

/** The links from one host to another, and the time a bit takes, ms. */
export interface Route {
  readonly links: readonly Link[];
  readonly latencyMs: number;
  readonly crossesZones: boolean;
}

/** The way between two places: up to where they meet, and down again. */
export function zoneRoute(from: Zone, to: Zone): Route {
  const links: Link[] = [];
  const downLinks: Link[] = [];
  let latencyMs = 0;
  let a = from;
  let b = to;
  while (a !== b) {
    if (a.depth >= b.depth) {
      if (a.up !== undefined) links.push(a.up);
      latencyMs += a.latencyMs;
      a = a.parent as Zone;
    } else {
      if (b.down !== undefined) downLinks.unshift(b.down);
      latencyMs += b.latencyMs;
      b = b.parent as Zone;
    }
  }
  return { links: [...links, ...downLinks], latencyMs, crossesZones: from !== to };
}
