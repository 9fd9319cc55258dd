import { type Chunk, sharedChunk } from '../core/chunk.ts';
import type { Digest } from '../core/digest.ts';
import type { ChunkStore } from './chunk-store.ts';
import { type Flight, startFlight } from './flight.ts';

/**
 * One read per digest at a time, however many ask: later callers share it. A caller that aborts leaves alone; the read
 * is aborted when the last one has left.
 */
export function dedup(inner: ChunkStore): ChunkStore {
  const flights = new Map<Digest, Flight<Chunk>>();
  return {
    has: (ref) => inner.has(ref),
    get(ref, options) {
      if (options.signal.aborted) return Promise.reject(options.signal.reason);
      let flight = flights.get(ref.digest);
      if (flight === undefined) {
        const started = startFlight(
          (shared) => inner.get(ref, shared),
          () => {
            if (flights.get(ref.digest) === started) flights.delete(ref.digest);
          },
          options.report,
        );
        flights.set(ref.digest, started);
        flight = started;
      }
      const joined = flight;
      return joined.join(options).then((chunk) => (joined.shared ? sharedChunk(chunk) : chunk));
    },
    ...(inner.put === undefined ? {} : { put: inner.put.bind(inner) }),
    close: () => inner.close(),
  };
}
