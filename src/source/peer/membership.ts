import type { Clock } from '../../clock.ts';
import { atMost } from '../../core/turns.ts';
import type { Logger } from '../../log.ts';
import { type BootstrapEntry, resolveBootstrap } from './bootstrap.ts';
import { SWARM_LIMITS } from './limits.ts';
import type { PeerLinks } from './links.ts';
import { decodePeers, MESSAGE } from './messages.ts';
import type { SwarmNode } from './node.ts';
import type { KnownPeer, PeerTable } from './peer-table.ts';

/** Finds the swarm, and keeps this node connected to it. */
export interface Membership {
  /** True until somebody told this node whom else there is: what is closest to a key is a guess till then. */
  readonly isYoung: boolean;
  /** Tries to reach the swarm now; resolves when everybody who was told of has been dialled, or `signal` fires. */
  join(): Promise<void>;
  stop(): void;
}

export interface MembershipComponents {
  readonly node: SwarmNode;
  readonly table: PeerTable;
  readonly links: PeerLinks;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Who is away is looked at this often. */
const TICK_MS = 500;
/** Bootstrap addresses are resolved and tried again this often: a swarm that was split finds itself that way. */
const BOOTSTRAP_EVERY_MS = 30_000;
/** … and this often while nobody is there. */
const ALONE_EVERY_MS = 2_000;
/** One neighbour is asked for news this often: who joined out of our sight. */
const EXCHANGE_EVERY_MS = 30_000;
/** Neighbours asked whom they know when joining; their tables are the same but for the newest. */
const ASKED_AT_JOIN = 3;
/** Connections kept whatever happens: those closest to this node, where its announcements and claims go to. */
const KEPT_CLOSEST = 32;

/** Starts to look for the swarm. */
export function startMembership(
  components: MembershipComponents,
  init: { bootstrap: readonly BootstrapEntry[]; connectionsMax: number },
): Membership {
  return new Members(components, init);
}

class Members implements Membership {
  readonly #parts: MembershipComponents;
  readonly #init: { bootstrap: readonly BootstrapEntry[]; connectionsMax: number };
  readonly #dial = atMost(SWARM_LIMITS.dials);
  readonly #timer: NodeJS.Timeout;
  /** Addresses that turned out to be this node. */
  readonly #own = new Set<string>();
  #toldBy = 0;
  #nextBootstrapMs = 0;
  #nextExchangeMs = 0;
  #exchanged = 0;
  #isLooking = false;
  #saidAlone = false;
  #isStopped = false;

  constructor(parts: MembershipComponents, init: { bootstrap: readonly BootstrapEntry[]; connectionsMax: number }) {
    this.#parts = parts;
    this.#init = init;
    parts.links.onGreeted((id) => this.#onGreeted(id));
    this.#nextBootstrapMs = parts.clock.nowMs() + ALONE_EVERY_MS;
    this.#nextExchangeMs = parts.clock.nowMs() + EXCHANGE_EVERY_MS;
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#timer.unref();
  }

  get isYoung(): boolean {
    return this.#toldBy === 0;
  }

  async join(): Promise<void> {
    await Promise.all([this.#lookForSwarm(), this.#dialKnown()]);
    await this.#dialKnown();
    if (this.#parts.table.members.length > 1 || this.#saidAlone || this.#isStopped) return;
    this.#saidAlone = true;
    this.#parts.log.info('no other node of the swarm answers yet: this one works alone and goes on looking');
  }

  stop(): void {
    this.#isStopped = true;
    clearInterval(this.#timer);
  }

  #tick(): void {
    const nowMs = this.#parts.clock.nowMs();
    void this.#dialKnown();
    if (nowMs >= this.#nextBootstrapMs) {
      const isAlone = !this.#connected().some(() => true);
      this.#nextBootstrapMs = nowMs + (isAlone ? ALONE_EVERY_MS : BOOTSTRAP_EVERY_MS);
      void this.#lookForSwarm();
    }
    if (nowMs >= this.#nextExchangeMs) {
      this.#nextExchangeMs = nowMs + EXCHANGE_EVERY_MS;
      const connected = this.#connected();
      const next = connected[this.#exchanged % Math.max(1, connected.length)];
      this.#exchanged += 1;
      if (next !== undefined) void this.#learnFrom(next.id);
    }
    this.#closeUnneeded();
  }

  #connected(): KnownPeer[] {
    return [...this.#parts.table.all()].filter(({ connected }) => connected);
  }

  async #lookForSwarm(): Promise<void> {
    if (this.#isLooking || this.#isStopped) return;
    this.#isLooking = true;
    try {
      const entries = (await Promise.all(this.#init.bootstrap.map(resolveBootstrap))).flat();
      const known = new Set(this.#connected().map(({ host, port }) => `${host} ${port}`));
      await Promise.all(
        entries
          .filter(({ host, port }) => !known.has(`${host} ${port}`) && !this.#own.has(`${host} ${port}`))
          .map((entry) => this.#dial(() => this.#tryBootstrap(entry))),
      );
    } finally {
      this.#isLooking = false;
    }
  }

  async #tryBootstrap({ host, port, id }: BootstrapEntry): Promise<void> {
    if (this.#isStopped) return;
    try {
      const met = await this.#parts.links.meet(id === undefined ? { host, port } : { host, port, id });
      await this.#learnFrom(met);
    } catch (error) {
      const reason = String((error as { cause?: Error }).cause?.message ?? error);
      if (/dial self/i.test(reason)) this.#own.add(`${host} ${port}`);
      else this.#parts.log.debug('a bootstrap address does not answer', { address: `${host}:${port}`, reason });
    }
  }

  #onGreeted(id: string): void {
    const { log, table } = this.#parts;
    const peer = table.get(id);
    log.info('swarm peer connected', { peer: id, address: peer?.host, zone: peer?.neighbour?.zone });
    if (this.#toldBy < ASKED_AT_JOIN) void this.#learnFrom(id);
  }

  async #learnFrom(id: string): Promise<void> {
    const { links, table, node } = this.#parts;
    try {
      const { findTimeoutMs } = SWARM_LIMITS;
      const body = await links.request(id, MESSAGE.peers, new Uint8Array(0), { timeoutMs: 4 * findTimeoutMs });
      for (const { id: multihash, host, port } of decodePeers(body)) {
        const name = node.idOf(multihash);
        if (name !== undefined && port !== 0) table.hear({ id: name, multihash, host, port });
      }
      this.#toldBy += 1;
      await this.#dialKnown();
    } catch (error) {
      this.#parts.log.debug('a swarm peer did not tell whom it knows', { peer: id, reason: String(error) });
    }
  }

  /** Dials who is known and away, closest to this node first, while there is room for connections. */
  async #dialKnown(): Promise<void> {
    const { table, clock, links } = this.#parts;
    if (this.#isStopped) return;
    const nowMs = clock.nowMs();
    const away = [...table.all()].filter(
      ({ connected, port, retryAtMs }) => !connected && port !== 0 && retryAtMs <= nowMs,
    );
    if (away.length === 0) return;
    const room = this.#init.connectionsMax - KEPT_CLOSEST - this.#connected().length;
    const isOver = away.length > room;
    const wanted = isOver ? this.#closestFirst(away).slice(0, Math.max(0, room)) : away;
    await Promise.all(
      wanted.map(({ id }) =>
        this.#dial(async () => (this.#isStopped ? undefined : links.reach(id).catch(() => undefined))),
      ),
    );
  }

  #closestFirst(peers: readonly KnownPeer[]): KnownPeer[] {
    const own = this.#parts.table.self.prefix;
    return [...peers].sort((one, other) => ((one.prefix ^ own) >>> 0) - ((other.prefix ^ own) >>> 0));
  }

  /** Closes connections beyond the limit: those least recently used, but never to those closest to this node. */
  #closeUnneeded(): void {
    const connected = this.#connected();
    const surplus = connected.length - this.#init.connectionsMax;
    if (surplus <= 0) return;
    const kept = new Set(this.#closestFirst(connected).slice(0, KEPT_CLOSEST));
    const unneeded = connected.filter((peer) => !kept.has(peer)).sort((one, other) => one.usedAtMs - other.usedAtMs);
    for (const { id } of unneeded.slice(0, surplus)) void this.#parts.links.hangUp(id);
  }
}
