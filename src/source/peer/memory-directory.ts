import type { Clock } from '../../clock.ts';
import type { Digest } from '../../core/digest.ts';
import { type ClaimLedger, createClaimLedger } from '../../core/policy/claim-ledger.ts';
import { CLAIM_LIMITS, claimShare } from '../../core/policy/claim-limits.ts';
import type { ClaimAnswer, HeldChunks, Neighbour, PeerDirectory } from './directory.ts';

/** A swarm within one process: what its members tell each other arrives at once. */
export interface MemoryHub {
  /** Members by id. */
  readonly members: Map<string, MemoryDirectory>;
  readonly providers: Map<Digest, Set<string>>;
  readonly ledger: ClaimLedger;
  readonly clock: Pick<Clock, 'nowMs'>;
}

/** A member of a hub. */
export interface MemoryDirectory extends PeerDirectory {
  readonly held: HeldChunks;
  /** Leaves the hub: others do not see it any more. Idempotent. */
  close(): void;
}

/** A swarm without members. */
export function createMemoryHub(components: { clock: Pick<Clock, 'nowMs'> }): MemoryHub {
  const { clock } = components;
  return { members: new Map(), providers: new Map(), ledger: createClaimLedger({ clock }), clock };
}

/** Joins `self` to the hub; ids and fingerprints are the caller's to keep apart. */
export function createMemoryDirectory(
  components: { hub: MemoryHub; held: HeldChunks },
  init: { self: Neighbour },
): MemoryDirectory {
  const directory = new HubMember(components, init.self);
  components.hub.members.set(init.self.id, directory);
  return directory;
}

class HubMember implements MemoryDirectory {
  readonly self: Neighbour;
  readonly held: HeldChunks;
  readonly #hub: MemoryHub;
  /** Peer id → when the ban ends. */
  readonly #banned = new Map<string, number>();

  constructor({ hub, held }: { hub: MemoryHub; held: HeldChunks }, self: Neighbour) {
    this.#hub = hub;
    this.held = held;
    this.self = self;
  }

  peers(): readonly Neighbour[] {
    return [...this.#hub.members.values()].map(({ self }) => self).filter(({ id }) => this.#sees(id));
  }

  async *find(digest: Digest, { signal }: { signal: AbortSignal }): AsyncGenerator<Neighbour> {
    for (const id of this.#hub.providers.get(digest) ?? []) {
      signal.throwIfAborted();
      const neighbour = this.#neighbour(id);
      if (neighbour !== undefined) yield neighbour;
    }
    signal.throwIfAborted();
  }

  async haveMap(neighbour: Neighbour, blob: Digest, { signal }: { signal: AbortSignal }) {
    signal.throwIfAborted();
    if (!this.#sees(neighbour.id)) return undefined;
    return this.#hub.members.get(neighbour.id)?.held.haveMap(blob);
  }

  async claim(
    { digests }: { digests: readonly Digest[] },
    { signal }: { signal: AbortSignal },
  ): Promise<readonly ClaimAnswer[]> {
    signal.throwIfAborted();
    const share = claimShare(digests.length);
    return digests.map((digest): ClaimAnswer => {
      const answer = this.#hub.ledger.claim(this.self.id, digest, share);
      if (answer.kind === 'granted') return answer;
      const holders = answer.holders.map((id) => this.#neighbour(id)).filter((holder) => holder !== undefined);
      return holders.length > 0 ? { kind: 'ask', holders } : { kind: 'granted', leaseMs: CLAIM_LIMITS.leaseMs };
    });
  }

  settle({ digests }: { digests: readonly Digest[] }, outcome: 'held' | 'failed'): void {
    for (const digest of digests) this.#hub.ledger.settle(this.self.id, digest, outcome);
  }

  announce(digests: readonly Digest[]): void {
    const { providers } = this.#hub;
    for (const digest of digests) {
      const ids = providers.get(digest) ?? new Set<string>();
      providers.set(digest, ids.add(this.self.id));
    }
  }

  withdraw(digests: readonly Digest[]): void {
    for (const digest of digests) this.#hub.providers.get(digest)?.delete(this.self.id);
  }

  byFingerprint(fingerprint: string): Neighbour | undefined {
    return this.peers().find((peer) => peer.fingerprint === fingerprint);
  }

  ban(id: string, { forMs }: { forMs: number }): void {
    this.#banned.set(id, this.#hub.clock.nowMs() + forMs);
  }

  close(): void {
    const { members, providers, ledger } = this.#hub;
    if (!members.delete(this.self.id)) return;
    ledger.forget(this.self.id);
    for (const ids of providers.values()) ids.delete(this.self.id);
  }

  #neighbour(id: string): Neighbour | undefined {
    return this.#sees(id) ? this.#hub.members.get(id)?.self : undefined;
  }

  /** A member, and neither banned by this node nor banning it: a ban cuts the connection of both. */
  #sees(id: string): boolean {
    const other = this.#hub.members.get(id);
    if (id === this.self.id || !(other instanceof HubMember)) return false;
    return !this.#bans(id) && !other.#bans(this.self.id) && this.#hub.members.get(this.self.id) === this;
  }

  #bans(id: string): boolean {
    return (this.#banned.get(id) ?? 0) > this.#hub.clock.nowMs();
  }
}
