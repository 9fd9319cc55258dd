import type { Clock } from '../../clock.ts';
import { CLAIM_LIMITS } from './claim-limits.ts';
import { ClaimMembers, NOBODY, STATE } from './claim-members.ts';
import { ClaimPeers } from './claim-peers.ts';

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

/** One chunk and its claimers. */
interface Entry {
  readonly members: ClaimMembers;
  /** Where the next search for a holder begins: of equals, another one each time. */
  turn: number;
  /** Who has the lease, while it has it. */
  root: number;
  grantedMs: number;
  leaseEndsMs: number;
  touchedMs: number;
}

class TreeLedger<Id extends string | number> implements ClaimLedger<Id> {
  readonly #clock: Pick<Clock, 'nowMs'>;
  readonly #limits: Record<keyof typeof CLAIM_LIMITS, number>;
  /** Least recently touched first. */
  readonly #entries = new Map<Id, Entry>();
  /** The last of them, and a time before which none was touched. */
  #latest: Id | undefined;
  #touchedSinceMs = Number.NEGATIVE_INFINITY;
  readonly #peers = new ClaimPeers<Id>();
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
    const slot = this.#peers.join(id);
    const entry = this.#touch(chunk, nowMs);
    const { members } = entry;
    this.#endLease(entry, nowMs);
    const own = members.placeOf(slot);
    let former = NOBODY;
    if (own !== NOBODY) {
      // Back after it was forgotten: others may still wait for it, so it keeps its place.
      if (this.#isGone(members, own)) members.revive(own, this.#peers.life[slot] as number);
      if (own === entry.root) return this.#renew(entry, nowMs);
      former = members.parent(own);
      this.#leaveParent(members, own);
      // It had the chunk and lost it: others may wait for it, so it must not wait for them.
      if (members.state(own) === STATE.held) members.setState(own, STATE.lost);
    }
    const holders = this.#choose(entry, own, former);
    const first = holders[0];
    if (first === undefined) return this.#grant(chunk, entry, { own, slot }, nowMs);
    const claimer = own === NOBODY ? this.#join(members, slot, STATE.coming) : own;
    if (claimer !== NOBODY) this.#point(members, claimer, first, share);
    // When one that is not remembered has settled is not known: it counts for this chunk, and for good.
    else members.addLoad(first, 1);
    return { kind: 'ask', holders: holders.map((at) => this.#peers.idOf(members.slot(at))) };
  }

  settle(id: Id, chunk: Id, outcome: 'held' | 'failed'): void {
    const entry = this.#entries.get(chunk);
    const slot = this.#peers.find(id);
    if (entry === undefined || slot === undefined) return;
    const { members } = entry;
    const own = members.placeOf(slot);
    if (own === NOBODY || this.#isGone(members, own)) return;
    this.#touch(chunk, this.#clock.nowMs());
    this.#leaveParent(members, own);
    if (entry.root === own) this.#clearRoot(entry);
    members.setState(own, outcome === 'held' ? STATE.held : STATE.lost);
  }

  forget(id: Id): void {
    this.#peers.forget(id);
  }

  /** The chunk's entry, moved to the end of the queue of those to forget. */
  #touch(chunk: Id, nowMs: number): Entry {
    const known = this.#entries.get(chunk);
    if (known !== undefined && chunk === this.#latest) {
      known.touchedMs = nowMs;
      return known;
    }
    if (known !== undefined) this.#entries.delete(chunk);
    else if (this.#entries.size >= this.#limits.chunks) this.#dropOldest();
    const entry: Entry = known ?? newEntry(nowMs);
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
      this.#dropMembers(entry.members);
      this.#entries.delete(chunk);
      return;
    }
  }

  #dropMembers(members: ClaimMembers): void {
    for (let at = 0; at < members.count; at += 1) this.#leaveParent(members, at);
    for (let at = 0; at < members.count; at += 1) this.#peers.release(members.slot(at));
    this.#members -= members.count;
    members.clear();
  }

  /** The node was forgotten since, whether or not it is back for other chunks. */
  #isGone(members: ClaimMembers, at: number): boolean {
    return members.life(at) !== this.#peers.life[members.slot(at)];
  }

  /** Counts a claimer against the one it is pointed at first. */
  #point(members: ClaimMembers, at: number, parent: number, share: number): void {
    members.point(at, parent, share);
    members.addLoad(parent, 1);
    const { load } = this.#peers;
    const slot = members.slot(parent);
    load[slot] = (load[slot] as number) + share;
  }

  /** Counts it no more. */
  #leaveParent(members: ClaimMembers, at: number): void {
    const parent = members.parent(at);
    if (parent === NOBODY) return;
    members.addLoad(parent, -1);
    const { load } = this.#peers;
    const slot = members.slot(parent);
    if (!this.#isGone(members, parent)) load[slot] = (load[slot] as number) - members.share(at);
    members.point(at, NOBODY, 0);
  }

  #endLease(entry: Entry, nowMs: number): void {
    const { root, members } = entry;
    if (root === NOBODY || (!this.#isGone(members, root) && nowMs < entry.leaseEndsMs)) return;
    members.setState(root, STATE.lost);
    this.#clearRoot(entry);
  }

  #clearRoot(entry: Entry): void {
    const { root, members } = entry;
    if (root === NOBODY) return;
    const { leases } = this.#peers;
    const slot = members.slot(root);
    if (!this.#isGone(members, root)) leases[slot] = (leases[slot] as number) - 1;
    entry.root = NOBODY;
  }

  #renew(entry: Entry, nowMs: number): LedgerAnswer<Id> {
    const end = Math.min(nowMs + this.#limits.leaseMs, entry.grantedMs + this.#limits.leaseLongestMs);
    entry.leaseEndsMs = Math.max(entry.leaseEndsMs, end);
    return { kind: 'granted', leaseMs: entry.leaseEndsMs - nowMs };
  }

  /** Places of the holders to ask, best first; none when nobody has the chunk or is fetching it. */
  #choose(entry: Entry, own: number, former: number): number[] {
    const { members, root } = entry;
    const { count } = members;
    const before = own === NOBODY ? count : members.state(own) === STATE.coming ? own : 0;
    const { holders: most, looks, littleLoad } = this.#limits;
    const best: number[] = [];
    const ranks: number[] = [];
    let isAlive = false;
    for (let step = 0; step < count; step += 1) {
      const at = (entry.turn + step) % count;
      const state = members.state(at);
      if (at === own || state === STATE.lost || this.#isGone(members, at)) continue;
      // Who claims again complains of a holder that said it had the chunk.
      if (state === STATE.held && at === former) continue;
      if (state === STATE.held || at === root) isAlive = true;
      else if (state !== STATE.coming || at >= before) continue;
      insert(best, ranks, { at, rank: this.#rank(members, at, state), most });
      // Nobody can be much better, or few would be.
      if (isAlive && ranks.length === most && ((ranks[most - 1] as number) <= littleLoad || step >= looks)) break;
    }
    entry.turn = (best[0] ?? -1) + 1;
    return isAlive ? best : [];
  }

  /**
   * Lower is asked first: free holders by load, then those to be in their order, so that the tree stays flat; then whoever
   * is least loaded. A node's load is that of all chunks: else the first to come would send all chunks of a region, and
   * the others nothing.
   */
  #rank(members: ClaimMembers, at: number, state: number): number {
    const load = this.#peers.load[members.slot(at)] as number;
    const isFree = members.load(at) < this.#limits.fanout && load < this.#limits.peerLoad;
    if (isFree) return state === STATE.held ? load : RANK.coming + at;
    return RANK.full + 2 * load + (state === STATE.held ? 0 : 1);
  }

  #join(members: ClaimMembers, slot: number, state: number): number {
    const { members: limit, membersPerChunk, membersPerChunkFull } = this.#limits;
    const most = this.#members < limit / 2 ? membersPerChunk : membersPerChunkFull;
    if (members.count >= most || this.#members >= limit) return NOBODY;
    this.#members += 1;
    this.#peers.use(slot);
    return members.add(slot, this.#peers.life[slot] as number, state);
  }

  #grant(chunk: Id, entry: Entry, claimer: { own: number; slot: number }, nowMs: number): LedgerAnswer<Id> {
    const granted: LedgerAnswer<Id> = { kind: 'granted', leaseMs: this.#limits.leaseMs };
    const { members } = entry;
    const { slot } = claimer;
    let { own } = claimer;
    if (!this.#isHeld(members)) {
      // Those who wait for the former lease claim again, and then wait behind this one.
      this.#dropMembers(members);
      own = NOBODY;
    }
    const { leases } = this.#peers;
    if ((leases[slot] as number) >= this.#limits.leasesPerPeer) own = NOBODY;
    else if (own === NOBODY) own = this.#join(members, slot, STATE.fetching);
    if (own === NOBODY) {
      if (members.count === 0) this.#entries.delete(chunk);
      return granted;
    }
    members.setState(own, STATE.fetching);
    leases[slot] = (leases[slot] as number) + 1;
    entry.root = own;
    entry.grantedMs = nowMs;
    entry.leaseEndsMs = nowMs + this.#limits.leaseMs;
    return granted;
  }

  #isHeld(members: ClaimMembers): boolean {
    for (let at = 0; at < members.count; at += 1) {
      if (members.state(at) === STATE.held && !this.#isGone(members, at)) return true;
    }
    return false;
  }
}

/** A chunk nobody claimed yet. */
function newEntry(nowMs: number): Entry {
  const times = { grantedMs: 0, leaseEndsMs: 0, touchedMs: nowMs };
  return { members: new ClaimMembers(), turn: 0, root: NOBODY, ...times };
}

/** Keeps the `most` lowest ranks, in order. */
function insert(best: number[], ranks: number[], { at, rank, most }: { at: number; rank: number; most: number }): void {
  if (best.length === most && rank >= (ranks[most - 1] as number)) return;
  let place = Math.min(best.length, most - 1);
  for (; place > 0 && (ranks[place - 1] as number) > rank; place -= 1) {
    best[place] = best[place - 1] as number;
    ranks[place] = ranks[place - 1] as number;
  }
  best[place] = at;
  ranks[place] = rank;
}
