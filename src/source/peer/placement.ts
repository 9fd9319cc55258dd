import { closestOf, type Placed } from './closest.ts';

/** A member of the swarm at some moment, as far as placing records goes. */
export interface PlacedMember extends Placed {
  readonly id: string;
  /**
   * A member that restarted has forgotten its records: it is not the one it was. Empty until this node was greeted: then
   * it counts as the one it was, and when that turns out wrong it changes.
   */
  readonly instance: string;
}

/** Who the members were at some moment, and so where each record went. */
export interface Placement {
  readonly members: readonly PlacedMember[];
  /** Closest first. */
  closest(place: Uint8Array, count: number): readonly PlacedMember[];
}

/** Freezes who the members are now. */
export function placementOf(members: readonly PlacedMember[]): Placement {
  const kept = members.map(({ id, instance, place, prefix }) => ({ id, instance, place, prefix }));
  const prefixes = Uint32Array.from(kept, ({ prefix }) => prefix);
  return { members: kept, closest: (place, count) => closestOf(kept, prefixes, place, count) };
}

/** True when records placed by one are where the other would place them. */
export function isSamePlacement(one: Placement, other: Placement): boolean {
  if (one.members.length !== other.members.length) return false;
  const before = new Map(one.members.map((member) => [member.id, member]));
  return other.members.every((member) => isSame(member, before.get(member.id)));
}

function isSame(one: PlacedMember, other: PlacedMember | undefined): boolean {
  if (one.id !== other?.id) return false;
  return one.instance === '' || other.instance === '' || one.instance === other.instance;
}

/** Who gets a record now, and does not have it from before. */
export function newHolders(
  now: Placement,
  before: Placement | undefined,
  place: Uint8Array,
  count: number,
): readonly PlacedMember[] {
  const targets = now.closest(place, count);
  if (before === undefined) return targets;
  const had = before.closest(place, count);
  return targets.filter((target) => !had.some((one) => isSame(target, one)));
}
