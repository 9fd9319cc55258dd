import { hash } from 'node:crypto';
import { type Digest, digestAlgorithm, digestBytes } from '../../core/digest.ts';

/** Bytes of a chunk key, and of a place in the key space. */
export const KEY_BYTES = 32;

/** Multihash of sha2-256: code 0x12, length 32. */
const MULTIHASH = Buffer.concat([Buffer.from([0x12, KEY_BYTES]), Buffer.alloc(KEY_BYTES)]);

/**
 * Key of a chunk in the DHT: the sha2-256 value of CIDv1(raw). The chunk's own digest when that is sha256, else sha256
 * over `algorithm:hex`, because kad-dht takes no other multihash.
 */
export function chunkKey(digest: Digest): Uint8Array {
  if (digestAlgorithm(digest) === 'sha256') return digestBytes(digest);
  return hash('sha256', digest, 'buffer');
}

/** The place in the key space of the key at `at`, as kad-dht computes it: sha256 over the multihash. */
export function placeOfKey(keys: Uint8Array, at = 0): Uint8Array {
  for (let index = 0; index < KEY_BYTES; index += 1) MULTIHASH[2 + index] = keys[at + index] as number;
  return hash('sha256', MULTIHASH, 'buffer');
}

/** A peer's place: sha256 over the multihash that its id is. */
export function placeOfPeer(multihash: Uint8Array): Uint8Array {
  return hash('sha256', multihash, 'buffer');
}

/** Where the coordinator of a region of a blob is looked for. */
export function placeOfRegion(blob: Digest, region: number): Uint8Array {
  return hash('sha256', `claim ${region} ${blob}`, 'buffer');
}
