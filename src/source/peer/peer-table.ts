import type { Clock } from '../../clock.ts';
import { backoffMs } from '../../core/policy/backoff.ts';
import { placeOfPeer } from './chunk-key.ts';
import { closestOf, prefixOf } from './closest.ts';
import type { Neighbour } from './directory.ts';
import { SWARM_LIMITS } from './limits.ts';

/** A peer as this node knows it. Only the table changes one. */
export interface KnownPeer {
  readonly id: string;
  readonly multihash: Uint8Array;
  /** Its place in the key space, and the first 32 bits of it. */
  readonly place: Uint8Array;
  readonly prefix: number;
  /** Where it takes connections; port 0 when not known. */
  host: string;
  port: number;
  /** From its Hello; undefined until one was seen since this process started. */
  neighbour: Neighbour | undefined;
  /** Of its Hello, hex. */
  instance: string;
  connected: boolean;
  /** Failed dials in a row, and when the next may be tried. */
  failures: number;
  retryAtMs: number;
  usedAtMs: number;
}

/** The peers of the swarm that this node knows, itself included, and who of them is closest to a place. */
export interface PeerTable {
  readonly self: KnownPeer;
  get(id: string): KnownPeer | undefined;
  /** Everybody but this node. */
  all(): Iterable<KnownPeer>;
  /** Somebody told of this peer; nothing of it is verified. Undefined when there is no room for it. */
  hear(peer: { id: string; multihash: Uint8Array; host: string; port: number }): KnownPeer | undefined;
  /** A Hello came over a live connection. */
  greeted(id: string, facts: { neighbour: Neighbour; instance: string; port: number }): void;
  disconnected(id: string): void;
  /** A dial failed: the peer is away until one succeeds. */
  failed(id: string): void;
  /** A request went to the peer, or came from it. */
  used(id: string): void;
  remove(id: string): void;
  /** The peers that should be asked about a place, closest first, this node among them. */
  closest(place: Uint8Array, count: number): readonly KnownPeer[];
  byFingerprint(fingerprint: string): Neighbour | undefined;
  /** Peers that count for `closest`, this node included. */
  readonly members: readonly KnownPeer[];
  /** Who is refused changed. */
  refresh(): void;
  /** Called whenever who counts for `closest` changes. */
  onChange(listener: () => void): void;
}

/** Waits between dials of a peer that is away. */
export const REDIAL = { firstMs: 1_000, longestMs: 60_000 } as const;
/** A peer is forgotten after this many failed dials in a row: some 20 minutes. */
export const FAILURES_MAX = 24;

/** A table that knows only this node. `isRefused` tells whom not to count: banned peers. */
export function createPeerTable(
  components: { clock: Pick<Clock, 'nowMs'>; isRefused: (id: string) => boolean },
  init: { self: Neighbour; multihash: Uint8Array; instance: string; peersMax?: number },
): PeerTable {
  return new SortedPeers(components, init);
}

class SortedPeers implements PeerTable {
  readonly self: KnownPeer;
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #isRefused: (id: string) => boolean;
  readonly #peersMax: number;
  readonly #peers = new Map<string, KnownPeer>();
  readonly #listeners: (() => void)[] = [];
  #members: KnownPeer[] | undefined;
  #prefixes = new Uint32Array(0);

  constructor(
    { clock, isRefused }: { clock: Pick<Clock, 'nowMs'>; isRefused: (id: string) => boolean },
    init: { self: Neighbour; multihash: Uint8Array; instance: string; peersMax?: number },
  ) {
    this.#clock = clock;
    this.#isRefused = isRefused;
    this.#peersMax = init.peersMax ?? SWARM_LIMITS.peers;
    this.self = newPeer({ id: init.self.id, multihash: init.multihash, host: init.self.address, port: 0 });
    Object.assign(this.self, { neighbour: init.self, instance: init.instance, connected: true });
  }

  get members(): readonly KnownPeer[] {
    if (this.#members === undefined) {
      this.#members = [this.self, ...[...this.#peers.values()].filter((peer) => this.#counts(peer))];
      this.#prefixes = Uint32Array.from(this.#members, ({ prefix }) => prefix);
    }
    return this.#members;
  }

  get(id: string): KnownPeer | undefined {
    return this.#peers.get(id);
  }

  all(): Iterable<KnownPeer> {
    return this.#peers.values();
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  hear(heard: { id: string; multihash: Uint8Array; host: string; port: number }): KnownPeer | undefined {
    if (heard.id === this.self.id) return undefined;
    const known = this.#peers.get(heard.id);
    if (known !== undefined) {
      // What it said itself counts for more; but who moved can only be found by what others say.
      const mayMove = !known.connected && (known.port === 0 || known.failures > 0);
      if (mayMove) Object.assign(known, { host: heard.host, port: heard.port });
      return known;
    }
    if (this.#peers.size >= this.#peersMax && !this.#makeRoom()) return undefined;
    const peer = newPeer(heard);
    this.#peers.set(peer.id, peer);
    this.#changed();
    return peer;
  }

  greeted(id: string, { neighbour, instance, port }: { neighbour: Neighbour; instance: string; port: number }): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    const before = this.#counts(peer);
    const isSame = peer.instance === instance;
    Object.assign(peer, { neighbour, instance, host: neighbour.address, connected: true, failures: 0 });
    if (port !== 0) peer.port = port;
    peer.usedAtMs = this.#clock.nowMs();
    if (!before || !isSame) this.#changed();
  }

  disconnected(id: string): void {
    const peer = this.#peers.get(id);
    if (peer === undefined || !peer.connected) return;
    peer.connected = false;
    // It stays among the closest until a dial fails: connections are also closed to have fewer.
    this.#changed();
  }

  failed(id: string): void {
    const peer = this.#peers.get(id);
    if (peer === undefined || peer.connected) return;
    peer.failures += 1;
    peer.retryAtMs = this.#clock.nowMs() + backoffMs(peer.failures, REDIAL);
    if (peer.failures >= FAILURES_MAX) this.#peers.delete(id);
    this.#changed();
  }

  used(id: string): void {
    const peer = this.#peers.get(id);
    if (peer !== undefined) peer.usedAtMs = this.#clock.nowMs();
  }

  refresh(): void {
    this.#changed();
  }

  remove(id: string): void {
    if (this.#peers.delete(id)) this.#changed();
  }

  closest(place: Uint8Array, count: number): readonly KnownPeer[] {
    const { members } = this;
    return closestOf(members, this.#prefixes, place, count);
  }

  byFingerprint(fingerprint: string): Neighbour | undefined {
    for (const { id, neighbour } of this.#peers.values()) {
      if (neighbour?.fingerprint === fingerprint && !this.#isRefused(id)) return neighbour;
    }
    return undefined;
  }

  #counts(peer: KnownPeer): boolean {
    if (this.#isRefused(peer.id)) return false;
    return peer.connected || (peer.failures === 0 && peer.port !== 0);
  }

  /** Makes room for one by leaving the peer that was never greeted, or is away longest. Those in use are never left. */
  #makeRoom(): boolean {
    let worst: KnownPeer | undefined;
    for (const peer of this.#peers.values()) {
      if (peer.connected || (peer.neighbour !== undefined && peer.failures === 0)) continue;
      if (worst === undefined || peer.failures > worst.failures) worst = peer;
    }
    // A peer that was only heard of, and never failed, stays: or a flood of names would wash out the true ones.
    if (worst === undefined || worst.failures === 0) return false;
    this.#peers.delete(worst.id);
    return true;
  }

  #changed(): void {
    this.#members = undefined;
    for (const listener of this.#listeners) listener();
  }
}

function newPeer(heard: { id: string; multihash: Uint8Array; host: string; port: number }): KnownPeer {
  const place = placeOfPeer(heard.multihash);
  return {
    ...heard,
    place,
    prefix: prefixOf(place),
    neighbour: undefined,
    instance: '',
    connected: false,
    failures: 0,
    retryAtMs: 0,
    usedAtMs: 0,
  };
}
