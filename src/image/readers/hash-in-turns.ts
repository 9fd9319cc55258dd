import { createHash } from 'node:crypto';
import { nextTurn } from './next-turn.ts';

/** Hashed at a time: about 5 ms. */
const HASH_TURN_BYTES = 8 * 1024 * 1024;

/** sha256 (hex) on the calling thread, with turns for other work: the thread pool's digest would copy all of it first. */
export async function hashInTurns(bytes: Uint8Array, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (let at = 0; at < bytes.byteLength; at += HASH_TURN_BYTES) {
    if (at > 0) await nextTurn(signal);
    hash.update(bytes.subarray(at, at + HASH_TURN_BYTES));
  }
  return hash.digest('hex');
}
