import { type Chunk, type ChunkRef, usedUp } from '../core/chunk.ts';
import type { Digest } from '../core/digest.ts';
import { atMost } from '../core/turns.ts';
import { hasCode } from '../errors.ts';
import type { BlobStore } from './blob-store.ts';
import type { ChunkStore, Urgency } from './chunk-store.ts';
import type { LocalStore } from './local-store.ts';

/** A chunk's bytes for one of several users. */
export interface LentChunk {
  readonly bytes: Uint8Array;
  /** To be called when they are not looked at any more, so that their memory can be used again; at most once. */
  release(): void;
}

/** What this node has for others. Nothing here makes it fetch anything. */
export interface SharedChunks {
  /** A held chunk that may be shared; undefined when there is none. Not read yet. */
  locate(digest: Digest): Promise<ChunkRef | undefined>;
  /** Its bytes, read and verified now or a moment ago; undefined when they turn out wrong or gone. */
  read(ref: ChunkRef, options: { signal: AbortSignal }): Promise<LentChunk | undefined>;
  /** Resolves when the chunk that this node is getting is there, rejects when that fails; undefined when it gets none. */
  underWay(digest: Digest, urgency: Urgency): Promise<void> | undefined;
}

/** The outermost store of a cascade, which knows what is under way, and what can be shared because of it. */
export interface SharingStore extends ChunkStore {
  readonly shared: SharedChunks;
}

/**
 * Refs of chunks that came lately, so that they are found before they are durable and in the index (a second or so):
 * 100 MB/s of 8 KB chunks. About 200 B each.
 */
const RECENT_REFS = 16_384;
/** Verified chunks kept for the next neighbour, bytes: in a flash crowd several ask for the same within a second. */
const KEPT_BYTES = 32 * 1024 * 1024;
/** Chunks remembered as read once: what is read again soon is kept, what one neighbour after the other reads through is not. */
const READ_ONCE = 48;
/** Chunks read and hashed at a time: half of libuv's threads, so that reads of this node's own containers find one. */
const READS_PARALLEL = 2;

/** `shareable`: whether chunks of this layer may be given to others (S13). */
export function createSharingStore(
  components: {
    inner: ChunkStore;
    local: LocalStore;
    blobs: Pick<BlobStore, 'opened'>;
    shareable: (blob: Digest) => boolean;
  },
  init: { keptBytes?: number } = {},
): SharingStore {
  const { inner } = components;
  const recent = new Map<Digest, ChunkRef>();
  return {
    shared: createSharedChunks({ ...components, recent }, init.keptBytes ?? KEPT_BYTES),
    has: (ref) => inner.has(ref),
    get(ref, options) {
      recent.delete(ref.digest);
      recent.set(ref.digest, ref);
      const oldest = recent.keys().next();
      if (recent.size > RECENT_REFS && oldest.done !== true) recent.delete(oldest.value);
      return inner.get(ref, options);
    },
    ...(inner.put === undefined ? {} : { put: inner.put.bind(inner) }),
    close: () => inner.close(),
  };
}

function createSharedChunks(
  components: {
    local: LocalStore;
    blobs: Pick<BlobStore, 'opened'>;
    shareable: (blob: Digest) => boolean;
    recent: ReadonlyMap<Digest, ChunkRef>;
  },
  keptBytes: number,
): SharedChunks {
  const { local, blobs, shareable, recent } = components;
  const kept = new KeptChunks(keptBytes);
  const reads = new Map<Digest, Reading>();
  const limited = atMost(READS_PARALLEL);

  /** A chunk that came lately, durable or not. */
  function here(digest: Digest): ChunkRef | undefined {
    const ref = recent.get(digest);
    const isHere = ref !== undefined && shareable(ref.blob) && blobs.opened(ref.blob)?.hasChunk(ref.index) === true;
    return isHere ? ref : undefined;
  }

  async function readNow(ref: ChunkRef, reading: () => Reading): Promise<Chunk | undefined> {
    try {
      // For all who ask: one of them leaving must not end it.
      const chunk = await limited(() => local.get(ref, { signal: new AbortController().signal }));
      kept.keep(chunk, reading());
      return chunk;
    } catch (error) {
      if (hasCode(error, 'CHUNK_MISSING')) return undefined;
      throw error;
    } finally {
      reads.delete(ref.digest);
    }
  }

  return {
    async locate(digest) {
      const found = here(digest) ?? (await local.locate(digest));
      // What came while the index was asked is not in it yet.
      return found !== undefined && shareable(found.blob) ? found : here(digest);
    },
    async read(ref, { signal }) {
      signal.throwIfAborted();
      let reading = kept.get(ref.digest) ?? reads.get(ref.digest);
      if (reading === undefined) {
        const started: Reading = { users: 0, chunk: readNow(ref, () => started) };
        reading = started;
        reads.set(ref.digest, started);
      }
      return await lend(reading);
    },
    underWay(digest, urgency) {
      const ref = recent.get(digest);
      if (ref === undefined || !shareable(ref.blob)) return undefined;
      return blobs.opened(ref.blob)?.underWay(ref.index, urgency);
    },
  };
}

/** One read of a chunk, for all who want it at that time. */
interface Reading {
  users: number;
  readonly chunk: Promise<Chunk | undefined>;
}

async function lend(reading: Reading): Promise<LentChunk | undefined> {
  // Counted before it is there: the first to be done must not take it away from the others.
  reading.users += 1;
  const chunk = await reading.chunk;
  return chunk === undefined ? undefined : { bytes: chunk.bytes, release: () => leave(reading, chunk) };
}

function leave(reading: Reading, chunk: Chunk): void {
  reading.users -= 1;
  if (reading.users === 0) usedUp(chunk);
}

/** Verified chunks, least recently used out first. */
class KeptChunks {
  readonly #most: number;
  readonly #held = new Map<Digest, { readonly chunk: Chunk; readonly reading: Reading }>();
  readonly #readOnce = new Set<Digest>();
  #bytes = 0;

  constructor(most: number) {
    this.#most = most;
  }

  get(digest: Digest): Reading | undefined {
    const kept = this.#held.get(digest);
    if (kept === undefined) return undefined;
    this.#held.delete(digest);
    this.#held.set(digest, kept);
    return kept.reading;
  }

  keep(chunk: Chunk, reading: Reading): void {
    if (chunk.bytes.byteLength > this.#most / 4 || this.#held.has(chunk.digest)) return;
    if (!this.#readOnce.delete(chunk.digest)) {
      this.#readOnce.add(chunk.digest);
      for (const oldest of this.#readOnce) {
        if (this.#readOnce.size <= READ_ONCE) break;
        this.#readOnce.delete(oldest);
      }
      return;
    }
    reading.users += 1;
    this.#held.set(chunk.digest, { chunk, reading });
    this.#bytes += chunk.bytes.byteLength;
    for (const [digest, oldest] of this.#held) {
      if (this.#bytes <= this.#most) break;
      this.#held.delete(digest);
      this.#bytes -= oldest.chunk.bytes.byteLength;
      leave(oldest.reading, oldest.chunk);
    }
  }
}
