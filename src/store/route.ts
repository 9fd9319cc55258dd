import type { ChunkRef } from '../core/chunk.ts';
import { isContentDigest } from '../core/digest.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { ChunkStore } from './chunk-store.ts';

/** Asks the stores in order and moves on only when one does not *have* the chunk; a failure ends the search. */
export function route(...stores: readonly ChunkStore[]): ChunkStore {
  return {
    async has(ref) {
      for (const store of stores) if (await store.has(ref)) return true;
      return false;
    },
    async get(ref, options) {
      let missing: ShoalError | undefined;
      for (const store of stores) {
        options.signal.throwIfAborted();
        try {
          return await store.get(ref, options);
        } catch (error) {
          if (!hasCode(error, 'CHUNK_MISSING')) throw error;
          missing = error;
        }
      }
      throw missing ?? chunkMissing(ref, 'there is no store to ask');
    },
    async close() {
      for (const store of stores) await store.close();
    },
  };
}

/** Chunks whose bytes have no digest are asked of `outside` alone: nobody else could give them so that they can be checked. */
export function withoutDigest(outside: ChunkStore, inner: ChunkStore): ChunkStore {
  const storeFor = ({ digest }: ChunkRef): ChunkStore => (isContentDigest(digest) ? inner : outside);
  return {
    has: (ref) => storeFor(ref).has(ref),
    get: (ref, options) => storeFor(ref).get(ref, options),
    ...(inner.put === undefined ? {} : { put: inner.put.bind(inner) }),
    close: () => inner.close(),
  };
}

/** The error of a store that does not have this chunk. */
export function chunkMissing(ref: Pick<ChunkRef, 'digest'>, why: string): ShoalError {
  return new ShoalError('CHUNK_MISSING', `chunk ${ref.digest}: ${why}`);
}
