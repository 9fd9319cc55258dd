import { hash } from 'node:crypto';
import { blake3 } from '@napi-rs/blake-hash';
import { ShoalError } from '../errors.ts';
import { type Digest, digestAlgorithm, digestHex, isContentDigest } from './digest.ts';

declare const chunkBrand: unique symbol;

/** The largest chunk shoal accepts from any format, in bytes: what one fault may have to fetch and hold in memory. */
export const MAX_CHUNK_BYTES = 32 * 1024 * 1024;

/** Below this many bytes hashing on the calling thread is cheaper than a trip to the thread pool. */
const HASH_INLINE_BYTES = 64 * 1024;

/** Names one chunk: what its bytes must hash to, and where a source that knows the blob finds it. */
export interface ChunkRef {
  /** Digest of the uncompressed chunk bytes, or a name (`spanName`) when only their compressed range has one. */
  readonly digest: Digest;
  /** Uncompressed length in bytes, > 0. */
  readonly length: number;
  /** The blob (layer as the registry names it) whose chunk table this ref was taken from. */
  readonly blob: Digest;
  /** Row in that chunk table. */
  readonly index: number;
}

/** Where this node's disk has a chunk, for file systems on which files can share blocks. */
export interface DiskCopy {
  /**
   * Lets `fd` at `offset` (a multiple of 4096) share the blocks of this copy, padding included; true when they were
   * read back and are the chunk's bytes. False when the bytes must be written. Never rejects.
   */
  shareWith(fd: number, offset: number): Promise<boolean>;
}

/** Verified bytes: a Chunk can only be made by `verifyChunk`, so one that exists matches its digest, or by `spanChunk`. */
export interface Chunk {
  readonly [chunkBrand]: true;
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  /** Nobody else holds the buffer of `bytes`: who uses the chunk up may free it (`freeBytes`). */
  readonly owned: boolean;
  /** Present when the bytes were read from a file of this node and sharing its blocks may pay. */
  readonly onDisk?: DiskCopy | undefined;
}

/**
 * Hashes `bytes` and returns them as a Chunk. Throws CHUNK_CORRUPT when length or digest differ.
 * Larger chunks are hashed on the thread pool (blake3, at 7 GB/s, always here: 0.14 ms per MiB); the caller must not change `bytes` meanwhile. `owned` and `onDisk` are
 * what the caller knows of them.
 */
export async function verifyChunk(
  ref: Pick<ChunkRef, 'digest' | 'length'>,
  bytes: Uint8Array,
  { owned = false, onDisk }: { owned?: boolean; onDisk?: DiskCopy | undefined } = {},
): Promise<Chunk> {
  if (bytes.byteLength !== ref.length) {
    throw new ShoalError('CHUNK_CORRUPT', `chunk ${ref.digest} has ${bytes.byteLength} bytes, expected ${ref.length}`);
  }
  if (!isContentDigest(ref.digest)) throw new ShoalError('CHUNK_CORRUPT', `nothing says what ${ref.digest} must be`);
  const found = await hashHex(digestAlgorithm(ref.digest), bytes);
  if (found !== digestHex(ref.digest)) {
    throw new ShoalError('CHUNK_CORRUPT', `chunk ${ref.digest} has digest ${found}`);
  }
  return { digest: ref.digest, bytes, owned, onDisk } as Chunk;
}

/** Throws CHUNK_CORRUPT unless the compressed range hashes to `digest` (sha256, 32 bytes). On the thread pool when large. */
export async function verifySpan(coded: Uint8Array, digest: Uint8Array): Promise<void> {
  const found = await hashHex('sha256', coded);
  if (found === asBuffer(digest).toString('hex')) return;
  throw new ShoalError('CHUNK_CORRUPT', `a compressed range has digest sha256:${found}`);
}

/**
 * A chunk without a digest of its own, cut out of what its compressed range decoded to. Only for who knows that
 * `verifySpan` accepted that range before it was decoded. Throws CHUNK_CORRUPT when it has another length, and for a chunk
 * that does have a digest.
 */
export function spanChunk(
  { digest, length }: Pick<ChunkRef, 'digest' | 'length'>,
  bytes: Uint8Array,
  { owned = false }: { owned?: boolean } = {},
): Chunk {
  if (isContentDigest(digest) || bytes.byteLength !== length) {
    throw new ShoalError('CHUNK_CORRUPT', `${bytes.byteLength} bytes of a compressed range are not chunk ${digest}`);
  }
  return { digest, bytes, owned } as Chunk;
}

/** The chunk for several users, none of whom may free it. */
export function sharedChunk(chunk: Chunk): Chunk {
  return chunk.owned ? { ...chunk, owned: false } : chunk;
}

async function hashHex(algorithm: string, bytes: Uint8Array): Promise<string> {
  if (algorithm === 'blake3') return blake3(asBuffer(bytes)).toString('hex');
  if (bytes.byteLength < HASH_INLINE_BYTES) return hash(algorithm, bytes, 'hex');
  const name = algorithm === 'sha512' ? 'SHA-512' : 'SHA-256';
  return Buffer.from(await crypto.subtle.digest(name, bytes as Uint8Array<ArrayBuffer>)).toString('hex');
}

/** The same memory. */
function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
