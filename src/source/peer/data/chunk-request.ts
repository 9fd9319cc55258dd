import { type Digest, parseDigest } from '../../../core/digest.ts';
import type { Urgency } from '../../../store/chunk-store.ts';
import { DATA_LIMITS } from './limits.ts';

/** What a neighbour can ask for: one chunk by its digest, and nothing else (S6). */
export interface ChunkRequest {
  readonly digest: Digest;
  readonly urgency: Urgency;
  /** How long it waits for a chunk that is on its way here, ms; 0: not at all. */
  readonly waitMs: number;
}

const TARGET = /^\/chunk\/(sha256|sha512|blake3)\/([0-9a-f]{64,128})(?:\?(?:wait=([1-9][0-9]{0,5}))?(&?prefetch)?)?$/;

/** Parses a request target; undefined for anything that `chunkTarget` does not make. Never throws. */
export function parseChunkTarget(target: unknown): ChunkRequest | undefined {
  if (typeof target !== 'string' || target.length > DATA_LIMITS.maxPathLength) return undefined;
  const [, algorithm, hex, wait, prefetch] = TARGET.exec(target) ?? [];
  if (algorithm === undefined) return undefined;
  const waitMs = Math.min(DATA_LIMITS.maxWaitMs, Number(wait ?? 0));
  const urgency = prefetch === undefined ? 'demand' : 'prefetch';
  try {
    const request = { digest: parseDigest(`${algorithm}:${hex}`), urgency, waitMs } as const;
    // One spelling for each request.
    return chunkTarget({ ...request, waitMs: Number(wait ?? 0) }) === target ? request : undefined;
  } catch {
    return undefined;
  }
}

/** The request target (RFC 9112 §3.2.1) for a chunk: `/chunk/<algorithm>/<hex>[?wait=<ms>][&prefetch]`. */
export function chunkTarget({ digest, urgency, waitMs }: ChunkRequest): string {
  const query = [...(waitMs > 0 ? [`wait=${waitMs}`] : []), ...(urgency === 'prefetch' ? ['prefetch'] : [])].join('&');
  return `/chunk/${digest.replace(':', '/')}${query === '' ? '' : `?${query}`}`;
}
