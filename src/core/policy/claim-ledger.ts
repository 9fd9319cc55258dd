import type { Clock } from '../../clock.ts';
import { ClaimIndex, UNINDEXED_MEMBERS } from './claim-index.ts';
import { CLAIM_LIMITS } from './claim-limits.ts';

/** What a claimer is told; holders are peer ids, best first. */
export type LedgerAnswer<Id = string> =
  | { readonly kind: 'granted'; readonly leaseMs: number }
  | { readonly kind: 'ask'; readonly holders: readonly Id[] };

/**
 * Who fetches which chunk from outside, and who waits for whom: the state of a claims coordinator. Pure. Peers and chunks
 * are any strings, or numbers. Answers are advice: who does not follow it costs bytes, never correctness.
 */
export interface ClaimLedger<Id extends string | number = string> {
  /** A free chunk is granted; else the claimer is pointed at holders, and becomes one that later claimers are pointed at. */
  claim(peer: Id, chunk: Id): LedgerAnswer<Id>;
  /** The peer now holds the chunk, or gave up on it. Any claimer may say so; of others it is ignored. */
  settle(peer: Id, chunk: Id, outcome: 'held' | 'failed'): void;
  /** The peer is gone or banned: its leases end, nobody is pointed at it any more. */
  forget(peer: Id): void;
  /** Chunks, and claimers over all chunks, that are remembered. */
  readonly size: { readonly chunks: number; readonly members: number };
}

/** Limits of a ledger, those of CLAIM_LIMITS where not given. */
export type ClaimLedgerInit = Partial<Record<keyof typeof CLAIM_LIMITS, number>>;

interface Peer<Id> {
  readonly id: Id;
  leases: number;
  gone: boolean;
}

/** A claimer of one chunk. `coming`: waits for another; `fetching`: has the lease; `lost`: had it, or gave up. */
interface Member<Id> {
  peer: Peer<Id>;
  state: 'fetching' | 'coming' | 'held' | 'lost';
  /** Claimers pointed at it first that have not settled. */
  load: number;
  /** Whom it was pointed at first. */
  parent: Member<Id> | undefined;
  /** Its place among the members. */
  readonly at: number;
}

interface Entry<Id> {
  /** In the order in which they came: a `coming` one is only ever pointed at those before it, so nobody waits in a circle. */
  members: Member<Id>[];
  /** Of many members. */
  index: ClaimIndex<Id, Member<Id>> | undefined;
  /** Who has the lease, while it has it. */
  root: Member<Id> | undefined;
  grantedMs: number;
  leaseEndsMs: number;
  touchedMs: number;
}

/** Entries looked at for their age with each claim, so that forgetting keeps up with claiming. */
const SWEEP_PER_CLAIM = 2;

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

  claim(id: Id, chunk: Id): LedgerAnswer<Id> {
    const nowMs = this.#clock.nowMs();
    this.#sweep(nowMs);
    const peer = this.#peer(id);
    const entry = this.#touch(chunk, nowMs);
    this.#endLease(entry, nowMs);
    const own = memberOf(entry, id);
    // Back after it was forgotten: others may still wait for it, so it keeps its place.
    if (own !== undefined) own.peer = peer;
    if (own !== undefined && own === entry.root) return this.#renew(entry, nowMs);
    leaveParent(entry, own);
    // It had the chunk and lost it: others may wait for it, so it must not wait for them.
    if (own?.state === 'held') turn(entry, own, 'lost');
    const before = own === undefined ? entry.members.length : own.state === 'coming' ? own.at : 0;
    const holders =
      entry.index?.holders(this.#limits.holders, { own, root: entry.root, before }) ?? this.#choose(entry, own, before);
    if (holders.length === 0) return this.#grant(chunk, entry, own, peer, nowMs);
    this.#point(entry, own, peer, holders);
    return { kind: 'ask', holders: holders.map((member) => member.peer.id) };
  }

  settle(id: Id, chunk: Id, outcome: 'held' | 'failed'): void {
    const entry = this.#entries.get(chunk);
    if (entry === undefined) return;
    const member = memberOf(entry, id);
    if (member === undefined || member.peer.gone) return;
    this.#touch(chunk, this.#clock.nowMs());
    leaveParent(entry, member);
    member.parent = undefined;
    if (entry.root === member) this.#clearRoot(entry);
    turn(entry, member, outcome === 'held' ? 'held' : 'lost');
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
      peer = { id, leases: 0, gone: false };
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
    const empty = { members: [], index: undefined, root: undefined, grantedMs: 0, leaseEndsMs: 0, touchedMs: nowMs };
    const entry: Entry<Id> = known ?? empty;
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
      this.#members -= entry.members.length;
      this.#entries.delete(chunk);
      return;
    }
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
  #choose(entry: Entry<Id>, own: Member<Id> | undefined, before: number): Member<Id>[] {
    const { members, root } = entry;
    const best: Member<Id>[] = [];
    const ranks: number[] = [];
    let isAlive = false;
    for (const [index, member] of members.entries()) {
      if (member === own || member.peer.gone) continue;
      // Who claims again complains of a holder that said it had the chunk.
      if (member.state === 'held' && member === own?.parent) continue;
      if (member.state === 'held' || member === root) isAlive = true;
      else if (member.state !== 'coming' || index >= before) continue;
      insert(best, ranks, member, this.#rank(member, index), this.#limits.holders);
    }
    return isAlive ? best : [];
  }

  /** Lower is asked first: free holders by load, then those to be in their order, so that the tree stays flat; then whoever is least loaded. */
  #rank(member: Member<Id>, index: number): number {
    const isFree = member.load < this.#limits.fanout;
    if (isFree) return member.state === 'held' ? member.load : 1_000 + index;
    return 1_000_000 + 2 * member.load + (member.state === 'held' ? 0 : 1);
  }

  #point(entry: Entry<Id>, known: Member<Id> | undefined, peer: Peer<Id>, [first]: readonly Member<Id>[]): void {
    const own = known ?? this.#join(entry, peer, 'coming');
    if (first !== undefined) addLoad(entry, first, 1);
    if (own !== undefined) own.parent = first;
  }

  #join(entry: Entry<Id>, peer: Peer<Id>, state: Member<Id>['state']): Member<Id> | undefined {
    if (entry.members.length >= this.#limits.membersPerChunk || this.#members >= this.#limits.members) return undefined;
    const member: Member<Id> = { peer, state, load: 0, parent: undefined, at: entry.members.length };
    entry.members.push(member);
    if (entry.index !== undefined) entry.index.added(member.at);
    else if (member.at === UNINDEXED_MEMBERS) entry.index = new ClaimIndex(entry.members, this.#limits.fanout);
    this.#members += 1;
    return member;
  }

  #grant(chunk: Id, entry: Entry<Id>, known: Member<Id> | undefined, peer: Peer<Id>, nowMs: number): LedgerAnswer<Id> {
    const granted: LedgerAnswer<Id> = { kind: 'granted', leaseMs: this.#limits.leaseMs };
    let own = known;
    if (!entry.members.some((member) => member.state === 'held' && !member.peer.gone)) {
      // Those who wait for the former lease claim again, and then wait behind this one.
      this.#members -= entry.members.length;
      entry.members = [];
      entry.index = undefined;
      own = undefined;
    }
    if (peer.leases < this.#limits.leasesPerPeer) own ??= this.#join(entry, peer, 'fetching');
    else own = undefined;
    if (own === undefined) {
      if (entry.members.length === 0) this.#entries.delete(chunk);
      return granted;
    }
    turn(entry, own, 'fetching');
    own.parent = undefined;
    peer.leases += 1;
    Object.assign(entry, { root: own, grantedMs: nowMs, leaseEndsMs: nowMs + this.#limits.leaseMs });
    return granted;
  }
}

function memberOf<Id>({ members, index }: Entry<Id>, id: Id): Member<Id> | undefined {
  return index === undefined ? members.find(({ peer }) => peer.id === id) : members[index.placeOf(id)];
}

function turn<Id>({ index }: Entry<Id>, member: Member<Id>, state: Member<Id>['state']): void {
  member.state = state;
  index?.changed(member.at);
}

function addLoad<Id>({ index }: Entry<Id>, member: Member<Id>, more: number): void {
  member.load += more;
  index?.changed(member.at);
}

function leaveParent<Id>(entry: Entry<Id>, member: Member<Id> | undefined): void {
  if (member?.parent !== undefined) addLoad(entry, member.parent, -1);
}

/** Keeps the `most` lowest ranks, in order. */
function insert<Id>(best: Member<Id>[], ranks: number[], member: Member<Id>, rank: number, most: number): void {
  if (best.length === most && rank >= (ranks[most - 1] as number)) return;
  let at = best.length;
  while (at > 0 && (ranks[at - 1] as number) > rank) at -= 1;
  best.splice(at, 0, member);
  ranks.splice(at, 0, rank);
  best.length = Math.min(best.length, most);
  ranks.length = best.length;
}
