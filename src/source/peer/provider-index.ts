import { randomBytes } from 'node:crypto';
import { KEY_BYTES } from './chunk-key.ts';
import { SWARM_LIMITS } from './limits.ts';
import { createProviderShard, type ProviderShard } from './provider-shard.ts';

/** Who announced what to this node. Times are milliseconds of any clock that the caller keeps to. */
export interface ProviderIndex {
  /**
   * Adds or refreshes records of one provider; `keys` are packed, 32 bytes each. Gives how many are now on record.
   * `isOwn`: the provider is this node, whose records are not counted against the limit of one peer.
   */
  add(provider: string, keys: Uint8Array, nowMs: number, options?: { isOwn: boolean }): number;
  /** Removes records of one provider. */
  remove(provider: string, keys: Uint8Array): void;
  /** Who provides the key, at most SWARM_LIMITS.providersPerKey. */
  lookup(key: Uint8Array, nowMs: number): string[];
  /** Drops a provider's records that have ended; one slice of the index per call, all of it in SHARDS calls. */
  sweep(nowMs: number): void;
  readonly records: number;
  /** Bytes of the arrays behind it. */
  readonly bytes: number;
}

/** Shards: each grows by itself, so that no single growth takes longer than a millisecond. */
const SHARDS = 256;
/** Providers that have records at a time: every known peer, and as many stock ones. */
const PROVIDERS = 2 * SWARM_LIMITS.peers;
/** Unit of record times: half a minute, in 16 bits it covers two weeks; the index counts from its own start. */
const SECOND = 1_000;

interface Provider {
  readonly id: string;
  readonly number: number;
  records: number;
}

/** An empty index. */
export function createProviderIndex(
  init: { records?: number; recordsPerPeer?: number; providersPerKey?: number; lifeMs?: number } = {},
): ProviderIndex {
  return new ShardedIndex({
    records: init.records ?? SWARM_LIMITS.records,
    recordsPerPeer: init.recordsPerPeer ?? SWARM_LIMITS.recordsPerPeer,
    providersPerKey: init.providersPerKey ?? SWARM_LIMITS.providersPerKey,
    lifeMs: init.lifeMs ?? SWARM_LIMITS.recordLifeMs,
  });
}

class ShardedIndex implements ProviderIndex {
  readonly #limits: { records: number; recordsPerPeer: number; providersPerKey: number; lifeMs: number };
  readonly #shards: ProviderShard[] = Array.from({ length: SHARDS }, createProviderShard);
  readonly #byId = new Map<string, Provider>();
  readonly #byNumber: (Provider | undefined)[] = [];
  readonly #freeNumbers: number[] = [];
  /** Odd multipliers: nobody outside can choose keys that fall together. */
  readonly #seeds = new Uint32Array(new Uint8Array(randomBytes(KEY_BYTES)).buffer).map((word) => word | 1);
  #startMs: number | undefined;
  #nextSweep = 0;
  #records = 0;

  constructor(limits: { records: number; recordsPerPeer: number; providersPerKey: number; lifeMs: number }) {
    this.#limits = limits;
  }

  get records(): number {
    return this.#records;
  }

  get bytes(): number {
    return this.#shards.reduce((sum, shard) => sum + shard.bytes, 0);
  }

  add(id: string, keys: Uint8Array, nowMs: number, { isOwn } = { isOwn: false }): number {
    const provider = this.#provider(id);
    if (provider === undefined) return 0;
    const now = this.#seconds(nowMs);
    const expires = now + Math.ceil(this.#limits.lifeMs / SECOND);
    let kept = 0;
    for (let at = 0; at + KEY_BYTES <= keys.byteLength; at += KEY_BYTES) {
      const hash = this.#hash(keys, at);
      const isFull =
        this.#records >= this.#limits.records || (!isOwn && provider.records >= this.#limits.recordsPerPeer);
      const most = isFull ? 0 : this.#limits.providersPerKey;
      const result = this.#shard(hash).add(keys, at, hash, provider.number, expires, now, most, this.#onDropped);
      if (result === 'refused') continue;
      kept += 1;
      if (result === 'added') {
        provider.records += 1;
        this.#records += 1;
      }
    }
    this.#releaseIfUnused(provider);
    return kept;
  }

  remove(id: string, keys: Uint8Array): void {
    const provider = this.#byId.get(id);
    if (provider === undefined) return;
    for (let at = 0; at + KEY_BYTES <= keys.byteLength; at += KEY_BYTES) {
      const hash = this.#hash(keys, at);
      this.#shard(hash).remove(keys, at, hash, provider.number, this.#onDropped);
    }
  }

  lookup(key: Uint8Array, nowMs: number): string[] {
    const hash = this.#hash(key, 0);
    const numbers = this.#shard(hash).lookup(key, hash, this.#seconds(nowMs));
    return numbers.map((number) => (this.#byNumber[number] as Provider).id);
  }

  sweep(nowMs: number): void {
    this.#shards[this.#nextSweep]?.sweep(this.#seconds(nowMs), this.#onDropped);
    this.#nextSweep = (this.#nextSweep + 1) % SHARDS;
  }

  readonly #onDropped = (number: number): void => {
    const provider = this.#byNumber[number] as Provider;
    provider.records -= 1;
    this.#records -= 1;
    this.#releaseIfUnused(provider);
  };

  #provider(id: string): Provider | undefined {
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    if (this.#byId.size >= PROVIDERS) return undefined;
    const number = this.#freeNumbers.pop() ?? this.#byNumber.length;
    const provider = { id, number, records: 0 };
    this.#byId.set(id, provider);
    this.#byNumber[number] = provider;
    return provider;
  }

  #releaseIfUnused(provider: Provider): void {
    if (provider.records > 0 || this.#byId.get(provider.id) !== provider) return;
    this.#byId.delete(provider.id);
    this.#byNumber[provider.number] = undefined;
    this.#freeNumbers.push(provider.number);
  }

  #seconds(nowMs: number): number {
    this.#startMs ??= nowMs;
    return Math.floor((nowMs - this.#startMs) / SECOND);
  }

  #shard(hash: number): ProviderShard {
    return this.#shards[hash >>> 24] as ProviderShard;
  }

  #hash(keys: Uint8Array, at: number): number {
    let hash = 0;
    for (let index = 0; index < 8; index += 1) {
      const from = at + 4 * index;
      const word =
        (keys[from] as number) |
        ((keys[from + 1] as number) << 8) |
        ((keys[from + 2] as number) << 16) |
        ((keys[from + 3] as number) << 24);
      hash = Math.imul(hash ^ word, this.#seeds[index] as number);
      hash ^= hash >>> 15;
    }
    return hash >>> 0;
  }
}
