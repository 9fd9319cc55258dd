import type { RangedBlob, ReadOptions } from '../../image/layer-reader.ts';
import { type Flight, startFlight } from '../../store/flight.ts';

/** Pieces read lately, and those being read, of all blobs of one mirror. */
export interface PieceCache {
  /** A piece, fetched by one caller for all; not the caller's to change. */
  get(key: string, options: ReadOptions, fetch: (options: ReadOptions) => Promise<Uint8Array>): Promise<Uint8Array>;
  /** Forgets everything: what is kept may be wrong. */
  clear(): void;
}

/** A cache of the last `pieces` pieces. */
export function createPieceCache(init: { pieces: number }): PieceCache {
  const kept = new Map<string, Uint8Array>();
  const flights = new Map<string, Flight<Uint8Array>>();

  function keep(key: string, bytes: Uint8Array): void {
    kept.delete(key);
    kept.set(key, bytes);
    for (const oldest of kept.keys()) {
      if (kept.size <= init.pieces) break;
      kept.delete(oldest);
    }
  }

  return {
    async get(key, options, fetch) {
      const found = kept.get(key);
      if (found !== undefined) {
        keep(key, found);
        return found;
      }
      let flight = flights.get(key);
      if (flight === undefined) {
        const started = startFlight(
          async ({ signal, urgency }) => {
            const bytes = await fetch({ signal, urgency });
            keep(key, bytes);
            return bytes;
          },
          () => {
            if (flights.get(key) === started) flights.delete(key);
          },
        );
        flights.set(key, started);
        flight = started;
      }
      const { signal, urgency = 'demand' } = options;
      return await flight.join({ signal, urgency });
    },
    clear: () => kept.clear(),
  };
}

/**
 * A blob that is only asked for whole pieces (`pieceBytes`, aligned; the last one is shorter), as Dragonfly moves them:
 * four reads of 1 MiB make one request for 4 MiB, not four that each bring a piece to the node.
 */
export function pieceBlob(
  inner: RangedBlob,
  components: { cache: PieceCache },
  init: { pieceBytes: number },
): RangedBlob {
  const { digest, size } = inner;
  const { pieceBytes } = init;

  function piece(index: number, options: ReadOptions): Promise<Uint8Array> {
    const start = index * pieceBytes;
    const length = Math.min(pieceBytes, size - start);
    return components.cache.get(`${digest}/${index}`, options, (own) => inner.read(start, length, own));
  }

  return {
    digest,
    size,
    async read(offset, length, options) {
      // Outside of the blob: the error is the inner one's to make.
      if (!(offset >= 0 && length > 0 && offset + length <= size)) return await inner.read(offset, length, options);
      const first = Math.floor(offset / pieceBytes);
      const end = Math.ceil((offset + length) / pieceBytes);
      // Pieces are shared, and what is returned is the caller's: so it is a copy.
      const bytes = Buffer.allocUnsafeSlow(length);
      const pieces = Array.from({ length: end - first }, (_, index) => piece(first + index, options));
      for (const each of pieces) each.catch(() => {});
      for (const [index, arriving] of pieces.entries()) {
        const whole = await arriving;
        const start = (first + index) * pieceBytes;
        const from = Math.max(0, offset - start);
        const to = Math.min(whole.byteLength, offset + length - start);
        bytes.set(whole.subarray(from, to), start + from - offset);
        options.onBytes?.(bytes, start + to - offset);
      }
      return bytes;
    },
  };
}
