/** A claimer, over all chunks. */
export interface Peer<Id> {
  readonly id: Id;
  leases: number;
  /** Shares of the claimers that are pointed at it first and have not settled, over all chunks. */
  load: number;
  gone: boolean;
}

/** A claimer of one chunk. `coming`: waits for another; `fetching`: has the lease; `lost`: had it, or gave up. */
export interface Member<Id> {
  peer: Peer<Id>;
  state: 'fetching' | 'coming' | 'held' | 'lost';
  /** Claimers of this chunk pointed at it first that have not settled. */
  load: number;
  /** Whom it was pointed at first, until it settles. */
  parent: Member<Id> | undefined;
  /** Where this counts, and how much: its parent may come back as another peer. */
  countedAt: Peer<Id> | undefined;
  share: number;
  /** Its place among the members. */
  readonly at: number;
}

/** One chunk and its claimers. */
export interface Entry<Id> {
  /** In the order in which they came: a `coming` one is only ever pointed at those before it, so nobody waits in a circle. */
  members: Member<Id>[];
  /** Places of many members by name. */
  places: Map<Id, number> | undefined;
  /** Where the next search for a holder begins: of equals, another one each time. */
  turn: number;
  /** Who has the lease, while it has it. */
  root: Member<Id> | undefined;
  grantedMs: number;
  leaseEndsMs: number;
  touchedMs: number;
}

/** Claimers of one chunk up to which looking at all is as fast as a map. */
const UNMAPPED_MEMBERS = 16;

/** A chunk nobody claimed yet. */
export function newEntry<Id>(nowMs: number): Entry<Id> {
  const times = { grantedMs: 0, leaseEndsMs: 0, touchedMs: nowMs };
  return { members: [], places: undefined, turn: 0, root: undefined, ...times };
}

/** Who claimed the chunk under this name. */
export function memberOf<Id>({ members, places }: Entry<Id>, id: Id): Member<Id> | undefined {
  return places === undefined ? members.find(({ peer }) => peer.id === id) : members[places.get(id) ?? -1];
}

/** One more claimer. */
export function addMember<Id>(entry: Entry<Id>, peer: Peer<Id>, state: Member<Id>['state']): Member<Id> {
  const { members, places } = entry;
  const member: Member<Id> = {
    peer,
    state,
    load: 0,
    parent: undefined,
    countedAt: undefined,
    share: 0,
    at: members.length,
  };
  members.push(member);
  if (member.at === UNMAPPED_MEMBERS) entry.places = new Map(members.map((each) => [each.peer.id, each.at]));
  else places?.set(peer.id, member.at);
  return member;
}

/** Counts a claimer against the one it is pointed at first. */
export function point<Id>(member: Member<Id>, parent: Member<Id>, share: number): void {
  parent.load += 1;
  parent.peer.load += share;
  Object.assign(member, { parent, countedAt: parent.peer, share });
}

/** Counts it no more. */
export function leaveParent<Id>(member: Member<Id> | undefined): void {
  if (member?.parent === undefined) return;
  member.parent.load -= 1;
  if (member.countedAt !== undefined) member.countedAt.load -= member.share;
  member.parent = undefined;
}

/** Keeps the `most` lowest ranks, in order. */
export function insert<Id>(best: Member<Id>[], ranks: number[], member: Member<Id>, rank: number, most: number): void {
  if (best.length === most && rank >= (ranks[most - 1] as number)) return;
  let at = best.length;
  while (at > 0 && (ranks[at - 1] as number) > rank) at -= 1;
  best.splice(at, 0, member);
  ranks.splice(at, 0, rank);
  best.length = Math.min(best.length, most);
  ranks.length = best.length;
}
