/**
 * Nodes that claim, as a coordinator knows them. Each has a slot, a small number that stays its own while a chunk remembers
 * it, and a life: who is forgotten and comes back has another one, and what it did in the former counts no more.
 */
export class ClaimPeers<Id extends string | number> {
  readonly #slots = new Map<Id, number>();
  readonly #ids: (Id | undefined)[] = [];
  /** 1: not forgotten. */
  #known = new Uint8Array(0);
  /** Chunks that remember it. */
  #uses = new Int32Array(0);
  readonly #free: number[] = [];
  /** Of each slot. */
  life = new Int32Array(0);
  /** Shares of the claimers that are pointed at it first and have not settled, over all chunks. */
  load = new Float64Array(0);
  /** Chunks it is fetching by our leave. */
  leases = new Int32Array(0);

  /** The slot of a node that claims. */
  join(id: Id): number {
    const slot = this.#slots.get(id) ?? this.#make(id);
    this.#known[slot] = 1;
    return slot;
  }

  find(id: Id): number | undefined {
    return this.#slots.get(id);
  }

  idOf(slot: number): Id {
    return this.#ids[slot] as Id;
  }

  forget(id: Id): void {
    const slot = this.#slots.get(id);
    if (slot === undefined) return;
    this.#known[slot] = 0;
    this.life[slot] = (this.life[slot] as number) + 1;
    this.load[slot] = 0;
    this.leases[slot] = 0;
    this.#freeUnused(slot);
  }

  /** One more chunk remembers it. */
  use(slot: number): void {
    this.#uses[slot] = (this.#uses[slot] as number) + 1;
  }

  /** One chunk less. */
  release(slot: number): void {
    this.#uses[slot] = (this.#uses[slot] as number) - 1;
    this.#freeUnused(slot);
  }

  #make(id: Id): number {
    const slot = this.#free.pop() ?? this.#ids.length;
    this.#ids[slot] = id;
    this.#slots.set(id, slot);
    if (slot >= this.life.length) this.#grow(Math.max(4, 2 * slot));
    return slot;
  }

  #grow(size: number): void {
    const grown = <T extends Uint8Array | Int32Array | Float64Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#known = grown(this.#known, new Uint8Array(size));
    this.#uses = grown(this.#uses, new Int32Array(size));
    this.life = grown(this.life, new Int32Array(size));
    this.load = grown(this.load, new Float64Array(size));
    this.leases = grown(this.leases, new Int32Array(size));
  }

  #freeUnused(slot: number): void {
    if (this.#known[slot] === 1 || this.#uses[slot] !== 0) return;
    this.#slots.delete(this.#ids[slot] as Id);
    this.#ids[slot] = undefined;
    this.#free.push(slot);
  }
}
