import type { ChunkRef } from '../core/chunk.ts';
import { type Digest, digestBytes } from '../core/digest.ts';
import { hasCode } from '../errors.ts';
import type { BlobDevice } from './blob-device.ts';
import type { BlobStore } from './blob-store.ts';
import type { ChunkStore } from './chunk-store.ts';
import { chunkMissing } from './route.ts';

/** Chunks that some device of this node holds, whatever layer they were fetched for. */
export interface LocalStore extends ChunkStore {
  /** Names a held chunk by its digest alone: what a peer asks for. */
  locate(digest: Digest): Promise<ChunkRef | undefined>;
  /** A held chunk's bytes for a neighbour (`BlobDevice.lendBytes`); CHUNK_MISSING as `get`. */
  lend(ref: ChunkRef, options: { signal: AbortSignal }): Promise<Uint8Array>;
}

/**
 * The chunk store over the node's own devices. Chunks are read and verified, and say where they lie so that another
 * device can share their blocks. Corrupt or unreadable copies are CHUNK_MISSING.
 */
export function createLocalStore({ blobs }: { blobs: Pick<BlobStore, 'holder' | 'opened'> }): LocalStore {
  async function place(ref: Pick<ChunkRef, 'digest'> & Partial<ChunkRef>): Promise<[BlobDevice, number] | undefined> {
    const own = ref.blob === undefined ? undefined : blobs.opened(ref.blob);
    if (own !== undefined && ref.index !== undefined && holds(own, ref.index, ref.digest)) return [own, ref.index];
    const found = await blobs.holder(ref.digest);
    if (found === undefined || !holds(found.device, found.row, ref.digest)) return undefined;
    return [found.device, found.row];
  }

  async function reading<T>(
    ref: ChunkRef,
    signal: AbortSignal,
    read: (device: BlobDevice, row: number) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    const found = await place(ref);
    if (found === undefined) throw chunkMissing(ref, 'not on this node');
    try {
      return await read(...found);
    } catch (error) {
      // A local disk in trouble is no reason not to ask the network.
      if (signal.aborted || !(hasCode(error, 'STORE_IO') || hasCode(error, 'UNAVAILABLE'))) throw error;
      throw chunkMissing(ref, error.message);
    }
  }

  return {
    async has(ref) {
      return (await place(ref)) !== undefined;
    },
    async locate(digest) {
      const found = await place({ digest });
      return found?.[0].ref(found[1]);
    },
    get: (ref, { signal }) => reading(ref, signal, (device, row) => device.readChunk(row, { signal })),
    lend: (ref, { signal }) => reading(ref, signal, (device, row) => device.lendBytes(row, { signal })),
    // The devices belong to the blob store.
    async close() {},
  };
}

function holds(device: BlobDevice, row: number, digest: Digest): boolean {
  if (row >= device.table.count || !digest.startsWith(`${device.table.algorithm}:`)) return false;
  return Buffer.compare(device.table.digestBytesAt(row), digestBytes(digest)) === 0 && device.hasChunk(row);
}
