/** What the index knows of a claimer of one chunk. */
export interface Indexed<Id> {
  readonly peer: { readonly id: Id; readonly gone: boolean };
  readonly state: string;
  readonly load: number;
  readonly parent: unknown;
}

/** Loads that are told apart: a member's bit is found by it. */
const MOST_LOAD = 256;

/** Claimers of one chunk up to which a list is as fast as an index. */
export const UNINDEXED_MEMBERS = 16;

/**
 * The claimers of a chunk that many claim: found by name, and those to ask by their state and load, without looking at all
 * of them. The members are those of an array that only grows.
 */
export class ClaimIndex<Id, T extends Indexed<Id>> {
  readonly #members: readonly T[];
  readonly #fanout: number;
  /** Places in `members`. */
  readonly #places = new Map<Id, number>();
  /** One bit a level and member. Levels come into being as loads reach them. */
  #bits = new Uint32Array();
  #words = 0;
  #levels = 0;
  /** Members of each level. */
  #counts = new Uint16Array();
  /** Level + 1 of each member; 0: it is not to be asked. */
  #levelOf = new Uint16Array();

  constructor(members: readonly T[], fanout: number) {
    this.#members = members;
    this.#fanout = fanout;
    for (let at = 0; at < members.length; at += 1) this.added(at);
  }

  placeOf(id: Id): number {
    return this.#places.get(id) ?? -1;
  }

  /** The member at this place is new. */
  added(at: number): void {
    if (at >= 32 * this.#words) this.#resize(Math.max(2, 2 * this.#words, (at >>> 5) + 1), this.#levels);
    this.#places.set((this.#members[at] as T).peer.id, at);
    this.changed(at);
  }

  /** State or load of the member at this place may have changed. */
  changed(at: number): void {
    const now = this.#level(this.#members[at] as T) + 1;
    const former = this.#levelOf[at] as number;
    if (now === former) return;
    if (now > this.#levels) this.#resize(this.#words, now + this.#fanout);
    this.#levelOf[at] = now;
    if (former > 0) this.#flip(former - 1, at, -1);
    if (now > 0) this.#flip(now - 1, at, 1);
  }

  /**
   * At most `count` to ask, best first: those with room that hold the chunk, the least loaded first, then those with room
   * that are getting it, then whoever is least loaded; each in the order of their coming, and of those that wait the ones
   * before `before` only. None when no member has the chunk or fetches it.
   */
  holders(count: number, init: { own: T | undefined; root: T | undefined; before: number }): T[] | undefined {
    const { own, root, before } = init;
    const found: T[] = [];
    let isAlive = root !== undefined && root !== own && !root.peer.gone;
    for (let level = 0; level < this.#levels && (found.length < count || !isAlive); level += 1) {
      if (this.#counts[level] === 0) continue;
      if (level >= this.#mostLevel && found.length < count) return undefined;
      const isHeld = this.#isHeld(level);
      // All that could be asked are known by now: does anybody have it?
      if (found.length === count && !isHeld) continue;
      for (let word = 0; word < this.#words; word += 1) {
        for (let bits = this.#bits[level * this.#words + word] as number; bits !== 0; bits &= bits - 1) {
          const at = 32 * word + 31 - Math.clz32(bits & -bits);
          const member = this.#members[at] as T;
          if (member === own || member.peer.gone) continue;
          // Who claims again complains of a holder that said it had the chunk.
          if (isHeld ? member === own?.parent : member !== root && (at >= before || member.state !== 'coming'))
            continue;
          if (isHeld) isAlive = true;
          if (found.length < count) found.push(member);
          if (found.length === count && isAlive) return found;
        }
      }
    }
    return isAlive ? found : [];
  }

  /** Held with room, by load; getting it with room; then by load, held before getting it. -1: not to be asked. */
  #level({ state, load }: T): number {
    if (state !== 'held' && state !== 'coming' && state !== 'fetching') return -1;
    if (load < this.#fanout) return state === 'held' ? load : this.#fanout;
    return Math.min(this.#mostLevel, this.#fanout + 1 + 2 * (load - this.#fanout)) + (state === 'held' ? 0 : 1);
  }

  /** Of those that hold the chunk and have the most load that is told apart, or more. */
  get #mostLevel(): number {
    return this.#fanout + 1 + 2 * Math.max(0, MOST_LOAD - this.#fanout);
  }

  #isHeld(level: number): boolean {
    return level < this.#fanout || (level > this.#fanout && (level - this.#fanout) % 2 === 1);
  }

  #flip(level: number, at: number, more: number): void {
    const word = level * this.#words + (at >>> 5);
    this.#bits[word] = (this.#bits[word] as number) ^ (1 << (at & 31));
    this.#counts[level] = (this.#counts[level] as number) + more;
  }

  #resize(words: number, levels: number): void {
    const bits = new Uint32Array(words * levels);
    for (let level = 0; level < this.#levels; level += 1) {
      bits.set(this.#bits.subarray(level * this.#words, (level + 1) * this.#words), level * words);
    }
    const counts = new Uint16Array(levels);
    counts.set(this.#counts);
    const levelOf = new Uint16Array(32 * words);
    levelOf.set(this.#levelOf);
    this.#bits = bits;
    this.#counts = counts;
    this.#levelOf = levelOf;
    this.#words = words;
    this.#levels = levels;
  }
}
