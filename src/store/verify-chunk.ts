import { hash } from 'node:crypto';
import { blake3 } from '@napi-rs/blake-hash';
import { type Chunk, type ChunkOrigin, type ChunkRef, matchedChunk, wrongLength } from '../core/chunk.ts';
import { digestAlgorithm } from '../core/digest.ts';
import { hashOnThread } from '../kernel/thread-hash.ts';

/** Below this many bytes hashing on the calling thread is cheaper than a trip to the thread pool. */
const HASH_INLINE_BYTES = 64 * 1024;

/**
 * Hashes `bytes` and returns them as a Chunk. Throws CHUNK_CORRUPT when length or digest differ. Larger chunks are hashed
 * on the thread pool (blake3, at 7 GB/s, always here: 0.14 ms per MiB); the caller must not change `bytes` meanwhile.
 */
export async function verifyChunk(
  ref: Pick<ChunkRef, 'digest' | 'length'>,
  bytes: Uint8Array,
  origin: ChunkOrigin = {},
): Promise<Chunk> {
  if (bytes.byteLength !== ref.length) throw wrongLength(ref, bytes);
  return matchedChunk(ref, bytes, await hashHex(digestAlgorithm(ref.digest), bytes), origin);
}

async function hashHex(algorithm: string, bytes: Uint8Array): Promise<string> {
  if (algorithm === 'blake3') return blake3(asBuffer(bytes)).toString('hex');
  if (bytes.byteLength < HASH_INLINE_BYTES) return hash(algorithm, bytes, 'hex');
  return (await hashOnThread(algorithm === 'sha512' ? 'sha512' : 'sha256', bytes)).toString('hex');
}

/** The same memory. */
function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
