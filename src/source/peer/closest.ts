/** Something with a place in the key space. */
export interface Placed {
  readonly place: Uint8Array;
  readonly prefix: number;
}

/** The first 32 bits of a place: enough to tell most distances apart. */
export function prefixOf(place: Uint8Array): number {
  return new DataView(place.buffer, place.byteOffset).getUint32(0);
}

/**
 * The `count` members closest to `place` by XOR, closest first; `prefixes` are those of the members, in their order.
 * About 1 ns a member: the prefixes lie next to each other, and most are farther than the worst kept.
 */
export function closestOf<T extends Placed>(
  members: readonly T[],
  prefixes: Uint32Array,
  place: Uint8Array,
  count: number,
): T[] {
  const prefix = prefixOf(place);
  const best: T[] = [];
  const distances: number[] = [];
  let used = 0;
  let worst = Number.POSITIVE_INFINITY;
  for (let index = 0; index < members.length; index += 1) {
    const distance = ((prefixes[index] as number) ^ prefix) >>> 0;
    if (distance > worst) continue;
    const member = members[index] as T;
    let at = used;
    for (; at > 0; at -= 1) {
      const before = best[at - 1] as T;
      const beforeDistance = distances[at - 1] as number;
      if (distance > beforeDistance || (distance === beforeDistance && !isCloser(member, before, place))) break;
      if (at === count) continue;
      best[at] = before;
      distances[at] = beforeDistance;
    }
    if (at === count) continue;
    best[at] = member;
    distances[at] = distance;
    if (used < count) used += 1;
    if (used === count) worst = distances[count - 1] as number;
  }
  return best;
}

/** By the bits after the first 32, which are the same. */
function isCloser(one: Placed, other: Placed, place: Uint8Array): boolean {
  for (let index = 4; index < place.byteLength; index += 1) {
    const here = (one.place[index] as number) ^ (place[index] as number);
    const there = (other.place[index] as number) ^ (place[index] as number);
    if (here !== there) return here < there;
  }
  return false;
}
