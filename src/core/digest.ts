import { hash } from 'node:crypto';
import { ShoalError } from '../errors.ts';

declare const digestBrand: unique symbol;

/** `algorithm:hex` as OCI writes it, canonical lower case. Only `parseDigest` and the hashing functions make one. */
export type Digest = string & { readonly [digestBrand]: true };

/** Algorithms shoal knows, with the length of their value in bytes. */
const ALGORITHM_BYTES = { sha256: 32, sha512: 64, blake3: 32 } as const;

/** A digest algorithm by its OCI (or nydus) name. */
export type DigestAlgorithm = keyof typeof ALGORITHM_BYTES;

/** How a chunk is named: by what its bytes hash to, or `span`, when only the compressed range it lies in has a digest. */
export type ChunkAlgorithm = DigestAlgorithm | 'span';

const SPAN = 'span:';

const DIGEST_PATTERN = /^(sha256|sha512|blake3):([0-9a-f]+)$/;

/** Parses `algorithm:hex` (OCI image spec, descriptor.md#digests). Throws INVALID_DIGEST on anything else. */
export function parseDigest(text: unknown): Digest {
  if (typeof text === 'string' && text.length <= 140) {
    const match = DIGEST_PATTERN.exec(text);
    if (match?.[2]?.length === 2 * ALGORITHM_BYTES[match?.[1] as DigestAlgorithm]) return text as Digest;
  }
  const shown = typeof text === 'string' ? JSON.stringify(text.slice(0, 80)) : typeof text;
  throw new ShoalError('INVALID_DIGEST', `not a digest: ${shown}; expected sha256:<64 lower-case hex digits>`);
}

/** The algorithm part. */
export function digestAlgorithm(digest: Digest): DigestAlgorithm {
  return digest.slice(0, digest.indexOf(':')) as DigestAlgorithm;
}

/** A chunk's name that says nothing of its bytes, of 32 bytes; `parseDigest` refuses it: it means nothing elsewhere. */
export function spanName(bytes: Uint8Array): Digest {
  return `${SPAN}${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}` as Digest;
}

/** True when bytes can be held against it; false for names made by `spanName`. */
export function isContentDigest(digest: Digest): boolean {
  return !digest.startsWith(SPAN);
}

/** How this name of a chunk was made. */
export function chunkAlgorithm(name: Digest): ChunkAlgorithm {
  return isContentDigest(name) ? digestAlgorithm(name) : 'span';
}

/** The hex part: safe as a file name. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The value as bytes (32 for sha256 and blake3, 64 for sha512). */
export function digestBytes(digest: Digest): Uint8Array {
  return Buffer.from(digestHex(digest), 'hex');
}

/** The digest with this value; throws INVALID_DIGEST when the length does not fit the algorithm. */
export function digestFromBytes(algorithm: DigestAlgorithm, bytes: Uint8Array): Digest {
  return parseDigest(`${algorithm}:${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`);
}

/** sha256 of these bytes, computed on the calling thread (about 0.6 ms per MiB). */
export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${hash('sha256', bytes, 'hex')}` as Digest;
}
