import { SHARE_STEP } from './claim-limits.ts';

/** What a claimer of a chunk is to the others. `coming`: waits for another; `lost`: had it, or gave up. */
export const STATE = { coming: 0, fetching: 1, held: 2, lost: 3 } as const;

/** No claimer. */
export const NOBODY = -1;

/** Words of a record; claimers of this chunk that are pointed at it first and have not settled stand above the state. */
const WORD = { slot: 0, life: 1, stateAndLoad: 2, parent: 3, share: 4 } as const;
const WORDS = 5;
const STATE_BITS = 2;
const STATE_MASK = 2 ** STATE_BITS - 1;
/** Claimers up to which looking at all is as fast as a table. */
const UNMAPPED_MEMBERS = 16;
const FIRST_CAPACITY = 3;

/**
 * The claimers of one chunk, by place: in the order in which they came, so that one that waits is only ever pointed at
 * those before it, and nobody waits in a circle. Records of 20 bytes side by side: a coordinator has hundreds of
 * thousands of them, and a claim looks at a hundred.
 */
export class ClaimMembers {
  count = 0;
  #words = new Int32Array(FIRST_CAPACITY * WORDS);
  /** Places of many members by slot, plus one; a table with open addressing, at most half full. */
  #places: Int32Array | undefined;

  /** The place of the node with this slot. */
  placeOf(slot: number): number {
    const places = this.#places;
    if (places === undefined) {
      for (let at = 0; at < this.count; at += 1) if (this.#words[at * WORDS + WORD.slot] === slot) return at;
      return NOBODY;
    }
    for (let index = hash(slot, places.length); ; index = (index + 1) & (places.length - 1)) {
      const at = (places[index] as number) - 1;
      if (at === NOBODY || this.#words[at * WORDS + WORD.slot] === slot) return at;
    }
  }

  /** One more claimer; its place. */
  add(slot: number, life: number, state: number): number {
    const at = this.count;
    if ((at + 1) * WORDS > this.#words.length) this.#grow();
    this.count = at + 1;
    this.#words.set([slot, life, state, NOBODY, 0], at * WORDS);
    if (this.#places !== undefined) this.#place(this.#places, slot, at);
    else if (at === UNMAPPED_MEMBERS) this.#mapAll();
    return at;
  }

  clear(): void {
    this.count = 0;
    this.#words = new Int32Array(FIRST_CAPACITY * WORDS);
    this.#places = undefined;
  }

  slot(at: number): number {
    return this.#words[at * WORDS + WORD.slot] as number;
  }

  /** The life of its slot that it claimed in. */
  life(at: number): number {
    return this.#words[at * WORDS + WORD.life] as number;
  }

  state(at: number): number {
    return (this.#words[at * WORDS + WORD.stateAndLoad] as number) & STATE_MASK;
  }

  setState(at: number, state: number): void {
    const index = at * WORDS + WORD.stateAndLoad;
    this.#words[index] = ((this.#words[index] as number) & ~STATE_MASK) | state;
  }

  /** Claimers of this chunk pointed at it first that have not settled. */
  load(at: number): number {
    return (this.#words[at * WORDS + WORD.stateAndLoad] as number) >> STATE_BITS;
  }

  addLoad(at: number, more: number): void {
    const index = at * WORDS + WORD.stateAndLoad;
    this.#words[index] = (this.#words[index] as number) + (more << STATE_BITS);
  }

  /** Whom it was pointed at first, until it settles. */
  parent(at: number): number {
    return this.#words[at * WORDS + WORD.parent] as number;
  }

  /** How much it counts against its parent; in one word, as a multiple of SHARE_STEP. */
  share(at: number): number {
    return (this.#words[at * WORDS + WORD.share] as number) * SHARE_STEP;
  }

  /** Points it at another, or at nobody. */
  point(at: number, parent: number, share: number): void {
    this.#words[at * WORDS + WORD.parent] = parent;
    this.#words[at * WORDS + WORD.share] = Math.round(share / SHARE_STEP);
  }

  /** It is back in another life: nobody is pointed at it yet. */
  revive(at: number, life: number): void {
    this.#words[at * WORDS + WORD.life] = life;
    this.addLoad(at, -this.load(at));
    for (let each = 0; each < this.count; each += 1) if (this.parent(each) === at) this.point(each, NOBODY, 0);
  }

  #grow(): void {
    const grown = new Int32Array(2 * this.#words.length);
    grown.set(this.#words);
    this.#words = grown;
  }

  #mapAll(): void {
    let size = 1;
    while (size < 4 * this.count) size *= 2;
    const places = new Int32Array(size);
    this.#places = places;
    for (let at = 0; at < this.count; at += 1) this.#put(places, this.slot(at), at);
  }

  #place(places: Int32Array, slot: number, at: number): void {
    if (2 * this.count > places.length) this.#mapAll();
    else this.#put(places, slot, at);
  }

  #put(places: Int32Array, slot: number, at: number): void {
    let index = hash(slot, places.length);
    while (places[index] !== 0) index = (index + 1) & (places.length - 1);
    places[index] = at + 1;
  }
}

/** Knuth's multiplicative hash, TAOCP 6.4; `size` is a power of two. */
function hash(slot: number, size: number): number {
  return Math.imul(slot, 0x9e3779b1) >>> (Math.clz32(size) + 1);
}
