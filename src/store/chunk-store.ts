import type { Chunk, ChunkRef } from '../core/chunk.ts';

/**
 * The one interface of the fetch cascade. Local store, neighbours, mirrors and origin implement it; dedup, route, count
 * and the rest are decorators over it.
 *
 * `get` throws CHUNK_MISSING when this store does not have the chunk (the next one is asked, nothing is wrong), and any
 * other error when it *failed*. A returned Chunk is verified: there is no other way to make one.
 */
export interface ChunkStore {
  /** Cheap and without network where possible; false when unknown. */
  has(ref: ChunkRef): boolean | Promise<boolean>;
  get(ref: ChunkRef, options: GetOptions): Promise<Chunk>;
  /** Keeps a verified chunk; only stores that hold data have it. */
  put?(ref: ChunkRef, chunk: Chunk): Promise<void>;
  close(): Promise<void>;
}

/** How urgent a read is: a container waits for `demand`; `prefetch` gives way. */
export type Urgency = 'demand' | 'prefetch';

/**
 * How to get a chunk. Hand the object on as it is: a shared read that somebody starts to wait for becomes `demand`
 * while it is under way, so read `urgency` when deciding what to do next, not before.
 */
export interface GetOptions {
  readonly signal: AbortSignal;
  readonly urgency?: Urgency;
  /** Called by the source that yields the chunk: its name, and the chunk's uncompressed bytes. */
  readonly report?: (source: string, bytes: number) => void;
}

/** The same options, live, under another signal. */
export function within(options: GetOptions, signal: AbortSignal): GetOptions {
  return {
    signal,
    get urgency() {
      return options.urgency ?? 'demand';
    },
    ...(options.report === undefined ? {} : { report: options.report }),
  };
}
