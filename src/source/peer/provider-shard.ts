import { KEY_BYTES } from './chunk-key.ts';

/** Called with the provider's number for each record that goes. */
export type OnDropped = (provider: number) => void;

/**
 * One slice of the provider index, all of it in typed arrays: keys hashed into chains, each key with a list of records
 * {provider, end}. Numbers in `next`-like arrays are an index plus 1, 0 ends a list.
 */
export interface ProviderShard {
  /** `most` is how many providers the key may have after this; ended ones make room. */
  add(
    keys: Uint8Array,
    at: number,
    hash: number,
    provider: number,
    expires: number,
    now: number,
    most: number,
    onDropped: OnDropped,
  ): 'added' | 'refreshed' | 'refused';
  remove(keys: Uint8Array, at: number, hash: number, provider: number, onDropped: OnDropped): void;
  lookup(key: Uint8Array, hash: number, now: number): number[];
  sweep(now: number, onDropped: OnDropped): void;
  readonly bytes: number;
}

/** An empty shard; it takes next to nothing until it is used. */
export function createProviderShard(): ProviderShard {
  return new TypedShard();
}

const MIN_ENTRIES = 16;
const GROWTH = 1.25;

class TypedShard implements ProviderShard {
  // per key
  #keys: Uint8Array = new Uint8Array(0);
  #heads: Uint32Array = new Uint32Array(0);
  #chains: Uint32Array = new Uint32Array(0);
  #usedKeys = 0;
  #freeKey = 0;
  #keyCount = 0;
  #buckets: Uint32Array = new Uint32Array(MIN_ENTRIES);
  // per record
  #providers: Uint16Array = new Uint16Array(0);
  #ends: Uint32Array = new Uint32Array(0);
  #nexts: Uint32Array = new Uint32Array(0);
  #usedRecords = 0;
  #freeRecord = 0;
  /** The hash function of the caller, kept per key so that growing needs no second one. */
  #hashes: Uint32Array = new Uint32Array(0);

  get bytes(): number {
    const arrays = [this.#keys, this.#heads, this.#chains, this.#buckets, this.#hashes];
    const all = [...arrays, this.#providers, this.#ends, this.#nexts];
    return all.reduce((sum, array) => sum + array.byteLength, 0);
  }

  add(
    keys: Uint8Array,
    at: number,
    hash: number,
    provider: number,
    expires: number,
    now: number,
    most: number,
    onDropped: OnDropped,
  ): 'added' | 'refreshed' | 'refused' {
    let key = this.#findKey(keys, at, hash);
    if (key !== 0) {
      const found = this.#findRecord(key, provider);
      if (found !== 0) {
        this.#ends[found - 1] = expires;
        return 'refreshed';
      }
      if (most > 0 && this.#countRecords(key) >= most) {
        this.#dropWhere(key, (record) => (this.#ends[record - 1] as number) <= now, onDropped);
      }
      if (this.#countRecords(key) >= most) return 'refused';
    } else if (most === 0) return 'refused';
    if (key === 0) key = this.#newKey(keys, at, hash);
    const record = this.#newRecord();
    this.#providers[record - 1] = provider;
    this.#ends[record - 1] = expires;
    this.#nexts[record - 1] = this.#heads[key - 1] as number;
    this.#heads[key - 1] = record;
    return 'added';
  }

  remove(keys: Uint8Array, at: number, hash: number, provider: number, onDropped: OnDropped): void {
    const key = this.#findKey(keys, at, hash);
    if (key === 0) return;
    this.#dropWhere(key, (record) => this.#providers[record - 1] === provider, onDropped);
    if (this.#heads[key - 1] === 0) this.#releaseKey(key);
  }

  lookup(key: Uint8Array, hash: number, now: number): number[] {
    const found: number[] = [];
    const entry = this.#findKey(key, 0, hash);
    if (entry === 0) return found;
    for (let record = this.#heads[entry - 1] as number; record !== 0; record = this.#nexts[record - 1] as number) {
      if ((this.#ends[record - 1] as number) > now) found.push(this.#providers[record - 1] as number);
    }
    return found;
  }

  sweep(now: number, onDropped: OnDropped): void {
    for (let bucket = 0; bucket < this.#buckets.length; bucket += 1) {
      let key = this.#buckets[bucket] as number;
      while (key !== 0) {
        const next = this.#chains[key - 1] as number;
        this.#dropWhere(key, (record) => (this.#ends[record - 1] as number) <= now, onDropped);
        if (this.#heads[key - 1] === 0) this.#releaseKey(key);
        key = next;
      }
    }
  }

  #dropWhere(key: number, isOut: (record: number) => boolean, onDropped: OnDropped): void {
    let before = 0;
    let record = this.#heads[key - 1] as number;
    while (record !== 0) {
      const next = this.#nexts[record - 1] as number;
      if (isOut(record)) {
        if (before === 0) this.#heads[key - 1] = next;
        else this.#nexts[before - 1] = next;
        this.#nexts[record - 1] = this.#freeRecord;
        this.#freeRecord = record;
        onDropped(this.#providers[record - 1] as number);
      } else before = record;
      record = next;
    }
  }

  #findKey(keys: Uint8Array, at: number, hash: number): number {
    let key = this.#buckets[hash & (this.#buckets.length - 1)] as number;
    while (key !== 0) {
      if (this.#hashes[key - 1] === hash && this.#isSame(keys, at, key)) return key;
      key = this.#chains[key - 1] as number;
    }
    return 0;
  }

  #isSame(keys: Uint8Array, at: number, key: number): boolean {
    const from = (key - 1) * KEY_BYTES;
    for (let index = 0; index < KEY_BYTES; index += 1) if (this.#keys[from + index] !== keys[at + index]) return false;
    return true;
  }

  #findRecord(key: number, provider: number): number {
    let record = this.#heads[key - 1] as number;
    while (record !== 0 && this.#providers[record - 1] !== provider) record = this.#nexts[record - 1] as number;
    return record;
  }

  #countRecords(key: number): number {
    let count = 0;
    for (let record = this.#heads[key - 1] as number; record !== 0; record = this.#nexts[record - 1] as number) {
      count += 1;
    }
    return count;
  }

  #newKey(keys: Uint8Array, at: number, hash: number): number {
    let key = this.#freeKey;
    if (key !== 0) this.#freeKey = this.#chains[key - 1] as number;
    else {
      if (this.#usedKeys === this.#heads.length) this.#growKeys();
      this.#usedKeys += 1;
      key = this.#usedKeys;
    }
    this.#keyCount += 1;
    if (this.#keyCount > this.#buckets.length) this.#growBuckets();
    this.#keys.set(keys.subarray(at, at + KEY_BYTES), (key - 1) * KEY_BYTES);
    this.#hashes[key - 1] = hash;
    this.#heads[key - 1] = 0;
    this.#link(key, hash);
    return key;
  }

  #link(key: number, hash: number): void {
    const bucket = hash & (this.#buckets.length - 1);
    this.#chains[key - 1] = this.#buckets[bucket] as number;
    this.#buckets[bucket] = key;
  }

  #releaseKey(key: number): void {
    const bucket = (this.#hashes[key - 1] as number) & (this.#buckets.length - 1);
    const next = this.#chains[key - 1] as number;
    let at = this.#buckets[bucket] as number;
    if (at === key) this.#buckets[bucket] = next;
    else {
      while (this.#chains[at - 1] !== key) at = this.#chains[at - 1] as number;
      this.#chains[at - 1] = next;
    }
    this.#chains[key - 1] = this.#freeKey;
    this.#freeKey = key;
    this.#keyCount -= 1;
  }

  #newRecord(): number {
    const free = this.#freeRecord;
    if (free !== 0) {
      this.#freeRecord = this.#nexts[free - 1] as number;
      return free;
    }
    if (this.#usedRecords === this.#ends.length) this.#growRecords();
    this.#usedRecords += 1;
    return this.#usedRecords;
  }

  #growKeys(): void {
    const most = grown(this.#heads.length);
    this.#keys = copied(this.#keys, new Uint8Array(most * KEY_BYTES));
    this.#heads = copied(this.#heads, new Uint32Array(most));
    this.#chains = copied(this.#chains, new Uint32Array(most));
    this.#hashes = copied(this.#hashes, new Uint32Array(most));
  }

  #growRecords(): void {
    const most = grown(this.#ends.length);
    this.#providers = copied(this.#providers, new Uint16Array(most));
    this.#ends = copied(this.#ends, new Uint32Array(most));
    this.#nexts = copied(this.#nexts, new Uint32Array(most));
  }

  #growBuckets(): void {
    const before = this.#buckets;
    this.#buckets = new Uint32Array(2 * before.length);
    for (let head of before) {
      while (head !== 0) {
        const next = this.#chains[head - 1] as number;
        this.#link(head, this.#hashes[head - 1] as number);
        head = next;
      }
    }
  }
}

function grown(length: number): number {
  return Math.max(MIN_ENTRIES, Math.ceil(length * GROWTH));
}

function copied<T extends Uint8Array | Uint16Array | Uint32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
