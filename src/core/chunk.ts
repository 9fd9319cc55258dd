import { ShoalError } from '../errors.ts';
import { freeBytes } from './byte-pool.ts';
import { type Digest, digestHex, isContentDigest } from './digest.ts';

declare const chunkBrand: unique symbol;

/** The largest chunk shoal accepts from any format, in bytes: what one fault may have to fetch and hold in memory. */
export const MAX_CHUNK_BYTES = 32 * 1024 * 1024;

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
  /** Present when the buffer has other users, whom who uses the chunk up tells by calling it, once. */
  readonly lent?: (() => void) | undefined;
  /** Present when the bytes were read from a file of this node and sharing its blocks may pay. */
  readonly onDisk?: DiskCopy | undefined;
}

/** What who made a chunk knows of its bytes. */
export interface ChunkOrigin {
  readonly owned?: boolean;
  readonly lent?: (() => void) | undefined;
  readonly onDisk?: DiskCopy | undefined;
}

/**
 * Bytes as a Chunk, when they have the ref's length and `foundHex`, the hash that `verifyChunk` took of them, is the
 * digest's. Throws CHUNK_CORRUPT otherwise.
 */
export function matchedChunk(
  ref: Pick<ChunkRef, 'digest' | 'length'>,
  bytes: Uint8Array,
  foundHex: string,
  { owned = false, lent, onDisk }: ChunkOrigin = {},
): Chunk {
  if (bytes.byteLength !== ref.length) throw wrongLength(ref, bytes);
  if (!isContentDigest(ref.digest) || foundHex !== digestHex(ref.digest)) {
    throw new ShoalError('CHUNK_CORRUPT', `chunk ${ref.digest} has digest ${foundHex}`);
  }
  return { digest: ref.digest, bytes, owned, lent, onDisk } as Chunk;
}

/**
 * A chunk without a digest of its own, cut out of what its compressed range decoded to. Only for who knows that
 * `verifySpan` accepted that range before it was decoded. Throws CHUNK_CORRUPT when it has another length, and for a chunk
 * that does have a digest.
 */
export function spanChunk(
  { digest, length }: Pick<ChunkRef, 'digest' | 'length'>,
  bytes: Uint8Array,
  { owned = false, lent }: Pick<ChunkOrigin, 'owned' | 'lent'> = {},
): Chunk {
  if (isContentDigest(digest) || bytes.byteLength !== length) {
    throw new ShoalError('CHUNK_CORRUPT', `${bytes.byteLength} bytes of a compressed range are not chunk ${digest}`);
  }
  return { digest, bytes, owned, lent } as Chunk;
}

/** CHUNK_CORRUPT: too many bytes, or too few. */
export function wrongLength({ digest, length }: Pick<ChunkRef, 'digest' | 'length'>, bytes: Uint8Array): ShoalError {
  return new ShoalError('CHUNK_CORRUPT', `chunk ${digest} has ${bytes.byteLength} bytes, expected ${length}`);
}

/** The chunk for several users, none of whom may free it. */
export function sharedChunk(chunk: Chunk): Chunk {
  return chunk.owned || chunk.lent !== undefined ? { ...chunk, owned: false, lent: undefined } : chunk;
}

/** To be called once by who has used the chunk up and gave it to nobody: its memory can be used again. */
export function usedUp({ owned, lent, bytes }: Chunk): void {
  if (owned) freeBytes(bytes);
  else lent?.();
}
