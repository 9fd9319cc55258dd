/** What the index knows of a claimer of one chunk. */
export interface Indexed<Id> {
  readonly peer: { readonly id: Id; readonly gone: boolean };
  readonly state: string;
  readonly load: number;
  readonly parent: unknown;
}

/** Claimers of one chunk up to which a list is as fast as an index. */
export const UNINDEXED_MEMBERS = 16;

/**
 * The claimers of a chunk that many claim: found by name, and those that have room for more by their state and
 * load, without looking at all of them. The members are those of an array that only grows.
 */
export class ClaimIndex<Id, T extends Indexed<Id>> {
  readonly #members: readonly T[];
  readonly #fanout: number;
  /** Places in `members`. */
  readonly #places = new Map<Id, number>();
  /** One bit a member and load below `fanout`: it holds the chunk and has that load. Then one: it gets it, and has room. */
  #open: Uint32Array;
  #words: number;
  /** Load + 1 under which each member's bit is set, `fanout` + 1 when it gets the chunk; 0: none is. */
  #loads: Uint8Array;

  constructor(members: readonly T[], fanout: number) {
    this.#members = members;
    this.#fanout = Math.min(fanout, 254);
    this.#words = 0;
    this.#open = new Uint32Array();
    this.#loads = new Uint8Array();
    for (let at = 0; at < members.length; at += 1) this.added(at);
  }

  placeOf(id: Id): number {
    return this.#places.get(id) ?? -1;
  }

  /** The member at this place is new. */
  added(at: number): void {
    if (at >= 32 * this.#words) this.#grow(at);
    this.#places.set((this.#members[at] as T).peer.id, at);
    this.changed(at);
  }

  /** State or load of the member at this place may have changed. */
  changed(at: number): void {
    const { state, load } = this.#members[at] as T;
    const hasRoom = load < this.#fanout;
    const isGetting = state === 'coming' || state === 'fetching';
    const now = hasRoom && state === 'held' ? load + 1 : hasRoom && isGetting ? this.#fanout + 1 : 0;
    const former = this.#loads[at] as number;
    if (now === former) return;
    this.#loads[at] = now;
    if (former > 0) this.#flip(former - 1, at);
    if (now > 0) this.#flip(now - 1, at);
  }

  /**
   * So many to ask that have room: those that hold the chunk, the least loaded first, then those that are getting it, each
   * in the order of their coming, and of those that wait the ones before `before` only. Undefined when there are fewer,
   * or none of them is known to have it or to fetch it: then all must be looked at.
   */
  holders(count: number, init: { own: T | undefined; root: T | undefined; before: number }): T[] | undefined {
    const { own, root, before } = init;
    const found: T[] = [];
    let isAlive = root !== undefined && root !== own && !root.peer.gone;
    const holding = this.#fanout * this.#words;
    for (let word = 0; word < this.#open.length; word += 1) {
      for (let bits = this.#open[word] as number; bits !== 0; bits &= bits - 1) {
        const at = 32 * (word % this.#words) + 31 - Math.clz32(bits & -bits);
        const member = this.#members[at] as T;
        if (member === own || member.peer.gone) continue;
        if (word < holding) {
          // Who claims again complains of a holder that said it had the chunk.
          if (member === own?.parent) continue;
          isAlive = true;
        } else if (member !== root && (at >= before || member.state !== 'coming')) continue;
        found.push(member);
        if (found.length === count) return isAlive ? found : undefined;
      }
    }
    return undefined;
  }

  #flip(load: number, at: number): void {
    const word = load * this.#words + (at >>> 5);
    this.#open[word] = (this.#open[word] as number) ^ (1 << (at & 31));
  }

  #grow(at: number): void {
    const words = Math.max(2, 2 * this.#words, (at >>> 5) + 1);
    const open = new Uint32Array(words * (this.#fanout + 1));
    for (let load = 0; load <= this.#fanout; load += 1) {
      open.set(this.#open.subarray(load * this.#words, (load + 1) * this.#words), load * words);
    }
    const loads = new Uint8Array(32 * words);
    loads.set(this.#loads);
    this.#open = open;
    this.#loads = loads;
    this.#words = words;
  }
}
