import type { Clock } from '../clock.ts';
import { type ErrorCode, ShoalError } from '../errors.ts';
import type { ChunkStore } from './chunk-store.ts';

/** Upper bounds of the latency buckets, ms; one more bucket takes the rest. */
export const LATENCY_BUCKETS_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000] as const;

/** What one source did since start. */
export interface SourceCounters {
  readonly name: string;
  /** Reads that ended, in whatever way. */
  requests: number;
  /** Reads under way. */
  active: number;
  /** Chunks yielded, and their uncompressed bytes. */
  chunks: number;
  bytes: number;
  /** Answers "I don't have it". */
  missing: number;
  /** Reads the caller gave up. */
  aborted: number;
  /** Failures by error code; errors that are not ours count as `OTHER`. */
  readonly errors: Partial<Record<ErrorCode | 'OTHER', number>>;
  /** Successful reads per bucket of LATENCY_BUCKETS_MS, and their total time in ms. */
  readonly latency: number[];
  latencySumMs: number;
}

/** Counters at zero for a source. */
export function sourceCounters(name: string): SourceCounters {
  const latency = new Array<number>(LATENCY_BUCKETS_MS.length + 1).fill(0);
  return {
    name,
    requests: 0,
    active: 0,
    chunks: 0,
    bytes: 0,
    missing: 0,
    aborted: 0,
    errors: {},
    latency,
    latencySumMs: 0,
  };
}

/** Counts what goes through `inner` into `counters`, and reports each chunk's bytes under the counters' name. */
export function count(components: { clock: Clock; inner: ChunkStore }, counters: SourceCounters): ChunkStore {
  const { clock, inner } = components;
  return {
    has: (ref) => inner.has(ref),
    async get(ref, options) {
      const startedMs = clock.nowMs();
      counters.active += 1;
      try {
        const chunk = await inner.get(ref, options);
        counters.chunks += 1;
        counters.bytes += chunk.bytes.byteLength;
        noteLatency(counters, clock.nowMs() - startedMs);
        options.report?.(counters.name, chunk.bytes.byteLength);
        return chunk;
      } catch (error) {
        noteError(counters, error, options.signal.aborted);
        throw error;
      } finally {
        counters.active -= 1;
        counters.requests += 1;
      }
    },
    ...(inner.put === undefined ? {} : { put: inner.put.bind(inner) }),
    close: () => inner.close(),
  };
}

function noteLatency(counters: SourceCounters, ms: number): void {
  const found = LATENCY_BUCKETS_MS.findIndex((bound) => ms <= bound);
  const bucket = found === -1 ? LATENCY_BUCKETS_MS.length : found;
  counters.latency[bucket] = (counters.latency[bucket] as number) + 1;
  counters.latencySumMs += ms;
}

function noteError(counters: SourceCounters, error: unknown, aborted: boolean): void {
  const code = error instanceof ShoalError ? error.code : 'OTHER';
  if (code === 'CHUNK_MISSING') counters.missing += 1;
  else if (aborted) counters.aborted += 1;
  else counters.errors[code] = (counters.errors[code] ?? 0) + 1;
}
