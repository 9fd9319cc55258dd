import type { Clock } from '../../clock.ts';
import { CLAIM_LIMITS } from './claim-limits.ts';
import {
  addMember,
  type Entry,
  insert,
  leaveParent,
  type Member,
  memberOf,
  newEntry,
  type Peer,
  point,
} from './claim-members.ts';

/** What a claimer is told; holders are peer ids, best first. */
export type LedgerAnswer<Id = string> =
  | { readonly kind: 'granted'; readonly leaseMs: number }
  | { readonly kind: 'ask'; readonly holders: readonly Id[] };

/**
 * Who fetches which chunk from outside, and who waits for whom: the state of a claims coordinator. Pure. Peers and chunks
 * are any strings, or numbers. Answers are advice: who does not follow it costs bytes, never correctness.
 */
export interface ClaimLedger<Id extends string | number = string> {
  /**
   * A free chunk is granted; else the claimer is pointed at holders, and becomes one that later claimers are pointed at.
   * `share`: how much it counts against the one it is pointed at first (`claimShare`).
   */
  claim(peer: Id, chunk: Id, share?: number): LedgerAnswer<Id>;
  /** The peer now holds the chunk, or gave up on it. Any claimer may say so; of others it is ignored. */
  settle(peer: Id, chunk: Id, outcome: 'held' | 'failed'): void;
  /** The peer is gone or banned: its leases end, nobody is pointed at it any more. */
  forget(peer: Id): void;
  /** Chunks, and claimers over all chunks, that are remembered. */
  readonly size: { readonly chunks: number; readonly members: number };
}

/** Limits of a ledger, those of CLAIM_LIMITS where not given. */
export type ClaimLedgerInit = Partial<Record<keyof typeof CLAIM_LIMITS, number>>;

/** Entries looked at for their age with each claim, so that forgetting keeps up with claiming. */
const SWEEP_PER_CLAIM = 2;

/** Ranks of those that are getting the chunk and have room, and of those that have none. */
const RANK = { coming: 1_000, full: 1_000_000 };

/** An empty ledger. */
export function createClaimLedger<Id extends string | number = string>(
  components: { clock: Pick<Clock, 'nowMs'> },
  init?: ClaimLedgerInit,
): ClaimLedger<Id> {
  return new TreeLedger<Id>(components.clock, init === undefined ? CLAIM_LIMITS : { ...CLAIM_LIMITS, ...init });
}

class TreeLedger<Id extends string | number> implements ClaimLedger<Id> {
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #limits: Record<keyof typeof CLAIM_LIMITS, number>;
  /** Least recently touched first. */
  readonly #entries = new Map<Id, Entry<Id>>();
  /** The last of them, and a time before which none was touched. */
  #latest: Id | undefined;
  #touchedSinceMs = Number.NEGATIVE_INFINITY;
  readonly #peers = new Map<Id, Peer<Id>>();
  #members = 0;

  constructor(clock: Pick<Clock, 'nowMs'>, limits: Record<keyof typeof CLAIM_LIMITS, number>) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get size(): { chunks: number; members: number } {
    return { chunks: this.#entries.size, members: this.#members };
  }

  claim(id: Id, chunk: Id, share = 1): LedgerAnswer<Id> {
    const nowMs = this.#clock.nowMs();
    this.#sweep(nowMs);
    const peer = this.#peer(id);
    const entry = this.#touch(chunk, nowMs);
    this.#endLease(entry, nowMs);
    const own = memberOf(entry, id);
    // Back after it was forgotten: others may still wait for it, so it keeps its place.
    if (own !== undefined) own.peer = peer;
    if (own !== undefined && own === entry.root) return this.#renew(entry, nowMs);
    const former = own?.parent;
    leaveParent(own);
    // It had the chunk and lost it: others may wait for it, so it must not wait for them.
    if (own?.state === 'held') own.state = 'lost';
    const before = own === undefined ? entry.members.length : own.state === 'coming' ? own.at : 0;
    const holders = this.#choose(entry, { own, former, before });
    if (holders.length === 0) return this.#grant(chunk, entry, own, peer, nowMs);
    const claimer = own ?? this.#join(entry, peer, 'coming');
    if (claimer !== undefined) point(claimer, holders[0] as Member<Id>, share);
    // When one that is not remembered has settled is not known: it counts for this chunk, and for good.
    else (holders[0] as Member<Id>).load += 1;
    return { kind: 'ask', holders: holders.map((member) => member.peer.id) };
  }

  settle(id: Id, chunk: Id, outcome: 'held' | 'failed'): void {
    const entry = this.#entries.get(chunk);
    if (entry === undefined) return;
    const member = memberOf(entry, id);
    if (member === undefined || member.peer.gone) return;
    this.#touch(chunk, this.#clock.nowMs());
    leaveParent(member);
    if (entry.root === member) this.#clearRoot(entry);
    member.state = outcome === 'held' ? 'held' : 'lost';
  }

  forget(id: Id): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    peer.gone = true;
    this.#peers.delete(id);
  }

  #peer(id: Id): Peer<Id> {
    let peer = this.#peers.get(id);
    if (peer === undefined) {
      peer = { id, leases: 0, load: 0, gone: false };
      this.#peers.set(id, peer);
    }
    return peer;
  }

  /** The chunk's entry, moved to the end of the queue of those to forget. */
  #touch(chunk: Id, nowMs: number): Entry<Id> {
    const known = this.#entries.get(chunk);
    if (known !== undefined && chunk === this.#latest) {
      known.touchedMs = nowMs;
      return known;
    }
    if (known !== undefined) this.#entries.delete(chunk);
    else if (this.#entries.size >= this.#limits.chunks) this.#dropOldest();
    const entry: Entry<Id> = known ?? newEntry(nowMs);
    entry.touchedMs = nowMs;
    this.#entries.set(chunk, entry);
    this.#latest = chunk;
    return entry;
  }

  #sweep(nowMs: number): void {
    for (let round = 0; round < SWEEP_PER_CLAIM; round += 1) {
      if (nowMs - this.#touchedSinceMs < this.#limits.retainMs) return;
      const [oldest] = this.#entries.values();
      if (oldest === undefined) return;
      this.#touchedSinceMs = oldest.touchedMs;
      if (nowMs - oldest.touchedMs < this.#limits.retainMs) return;
      this.#dropOldest();
    }
  }

  #dropOldest(): void {
    for (const [chunk, entry] of this.#entries) {
      this.#clearRoot(entry);
      this.#dropMembers(entry);
      this.#entries.delete(chunk);
      return;
    }
  }

  #dropMembers(entry: Entry<Id>): void {
    for (const member of entry.members) leaveParent(member);
    this.#members -= entry.members.length;
    entry.members = [];
    entry.places = undefined;
  }

  #endLease(entry: Entry<Id>, nowMs: number): void {
    const { root } = entry;
    if (root === undefined || (!root.peer.gone && nowMs < entry.leaseEndsMs)) return;
    root.state = 'lost';
    this.#clearRoot(entry);
  }

  #clearRoot(entry: Entry<Id>): void {
    if (entry.root !== undefined) entry.root.peer.leases -= 1;
    entry.root = undefined;
  }

  #renew(entry: Entry<Id>, nowMs: number): LedgerAnswer<Id> {
    const end = Math.min(nowMs + this.#limits.leaseMs, entry.grantedMs + this.#limits.leaseLongestMs);
    entry.leaseEndsMs = Math.max(entry.leaseEndsMs, end);
    return { kind: 'granted', leaseMs: entry.leaseEndsMs - nowMs };
  }

  /** The holders to ask, best first; none when nobody has the chunk or is fetching it. */
  #choose(
    entry: Entry<Id>,
    { own, former, before }: { own: Member<Id> | undefined; former: Member<Id> | undefined; before: number },
  ): Member<Id>[] {
    const { members, root } = entry;
    const { holders: most, looks, littleLoad } = this.#limits;
    const best: Member<Id>[] = [];
    const ranks: number[] = [];
    let isAlive = false;
    for (let step = 0; step < members.length; step += 1) {
      const member = members[(entry.turn + step) % members.length] as Member<Id>;
      const { state } = member;
      if (member === own || member.peer.gone) continue;
      // Who claims again complains of a holder that said it had the chunk.
      if (state === 'held' && member === former) continue;
      if (state === 'held' || member === root) isAlive = true;
      else if (state !== 'coming' || member.at >= before) continue;
      insert(best, ranks, member, this.#rank(member), most);
      // Nobody can be much better, or few would be.
      if (isAlive && ranks.length === most && ((ranks[most - 1] as number) <= littleLoad || step >= looks)) break;
    }
    entry.turn = (best[0]?.at ?? -1) + 1;
    return isAlive ? best : [];
  }

  /**
   * Lower is asked first: free holders by load, then those to be in their order, so that the tree stays flat; then whoever
   * is least loaded. A node's load is that of all chunks: else the first to come would send all chunks of a region, and
   * the others nothing.
   */
  #rank({ state, load, peer, at }: Member<Id>): number {
    const isFree = load < this.#limits.fanout && peer.load < this.#limits.peerLoad;
    if (isFree) return state === 'held' ? peer.load : RANK.coming + at;
    return RANK.full + 2 * peer.load + (state === 'held' ? 0 : 1);
  }

  #join(entry: Entry<Id>, peer: Peer<Id>, state: Member<Id>['state']): Member<Id> | undefined {
    const { members, membersPerChunk, membersPerChunkFull } = this.#limits;
    const most = this.#members < members / 2 ? membersPerChunk : membersPerChunkFull;
    if (entry.members.length >= most || this.#members >= members) return undefined;
    this.#members += 1;
    return addMember(entry, peer, state);
  }

  #grant(chunk: Id, entry: Entry<Id>, known: Member<Id> | undefined, peer: Peer<Id>, nowMs: number): LedgerAnswer<Id> {
    const granted: LedgerAnswer<Id> = { kind: 'granted', leaseMs: this.#limits.leaseMs };
    let own = known;
    if (!entry.members.some((member) => member.state === 'held' && !member.peer.gone)) {
      // Those who wait for the former lease claim again, and then wait behind this one.
      this.#dropMembers(entry);
      own = undefined;
    }
    if (peer.leases < this.#limits.leasesPerPeer) own ??= this.#join(entry, peer, 'fetching');
    else own = undefined;
    if (own === undefined) {
      if (entry.members.length === 0) this.#entries.delete(chunk);
      return granted;
    }
    own.state = 'fetching';
    peer.leases += 1;
    Object.assign(entry, { root: own, grantedMs: nowMs, leaseEndsMs: nowMs + this.#limits.leaseMs });
    return granted;
  }
}
