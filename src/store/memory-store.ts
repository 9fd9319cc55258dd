import type { Chunk } from '../core/chunk.ts';
import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import type { ChunkStore } from './chunk-store.ts';
import { chunkMissing } from './route.ts';

/** Chunks in memory, by digest: for tests and the simulator. Never evicts. */
export function createMemoryStore(chunks: Iterable<Chunk> = []): Required<ChunkStore> {
  const held = new Map<Digest, Chunk>();
  for (const chunk of chunks) held.set(chunk.digest, chunk);
  let closed = false;
  return {
    has: (ref) => !closed && held.has(ref.digest),
    async get(ref, { signal, report }) {
      signal.throwIfAborted();
      if (closed) throw new ShoalError('UNAVAILABLE', 'the store is closed');
      const chunk = held.get(ref.digest);
      if (chunk === undefined) throw chunkMissing(ref, 'not in memory');
      report?.('memory', chunk.bytes.byteLength);
      return chunk;
    },
    async put(_ref, chunk) {
      if (closed) throw new ShoalError('UNAVAILABLE', 'the store is closed');
      held.set(chunk.digest, chunk);
    },
    async close() {
      closed = true;
      held.clear();
    },
  };
}
