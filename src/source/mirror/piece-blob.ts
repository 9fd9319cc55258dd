import { takeBytes } from '../../core/byte-pool.ts';
import type { RangedBlob, ReadOptions } from '../../image/layer-reader.ts';
import { type Flight, startFlight } from '../../store/flight.ts';

/** Told of a piece as it arrives: its first `filled` bytes are in `bytes`. */
type OnArrival = (bytes: Uint8Array, filled: number) => void;

/** Pieces read lately, and those being read, of all blobs of one mirror. */
export interface PieceCache {
  /** A piece, fetched by one caller for all; not the caller's to change. `onArrival` is told of what is there already. */
  get(
    key: string,
    options: Pick<ReadOptions, 'signal' | 'urgency'>,
    fetch: (options: ReadOptions) => Promise<Uint8Array>,
    onArrival: OnArrival,
  ): Promise<Uint8Array>;
  /** Forgets everything: what is kept may be wrong. */
  clear(): void;
}

/** A piece under way. */
interface Arriving {
  readonly flight: Flight<Uint8Array>;
  readonly watchers: Set<OnArrival>;
  so: { bytes: Uint8Array; filled: number } | undefined;
}

/** A cache of the last `pieces` pieces, kept until nobody asked for one for `keptMs`. */
export function createPieceCache(init: { pieces: number; keptMs: number }): PieceCache {
  const kept = new Map<string, Uint8Array>();
  const arriving = new Map<string, Arriving>();
  let idle: NodeJS.Timeout | undefined;

  function keep(key: string, bytes: Uint8Array): void {
    kept.delete(key);
    kept.set(key, bytes);
    for (const oldest of kept.keys()) {
      if (kept.size <= init.pieces) break;
      kept.delete(oldest);
    }
    // Readers that went on do not come back soon.
    clearTimeout(idle);
    idle = setTimeout(() => kept.clear(), init.keptMs).unref();
  }

  function start(key: string, fetch: (options: ReadOptions) => Promise<Uint8Array>): Arriving {
    const started: Arriving = {
      watchers: new Set(),
      so: undefined,
      flight: startFlight(
        async (shared) => {
          const onBytes: OnArrival = (bytes, filled) => {
            started.so = { bytes, filled };
            for (const watch of started.watchers) watch(bytes, filled);
          };
          const bytes = await fetch({ signal: shared.signal, urgency: shared.urgency, onBytes });
          keep(key, bytes);
          return bytes;
        },
        () => {
          if (arriving.get(key) === started) arriving.delete(key);
        },
      ),
    };
    arriving.set(key, started);
    return started;
  }

  return {
    async get(key, { signal, urgency = 'demand' }, fetch, onArrival) {
      const found = kept.get(key);
      if (found !== undefined) {
        keep(key, found);
        return found;
      }
      const piece = arriving.get(key) ?? start(key, fetch);
      if (piece.so !== undefined) onArrival(piece.so.bytes, piece.so.filled);
      piece.watchers.add(onArrival);
      try {
        return await piece.flight.join({ signal, urgency });
      } finally {
        piece.watchers.delete(onArrival);
      }
    },
    clear: () => kept.clear(),
  };
}

/**
 * A blob that is only asked for whole pieces (`pieceBytes`, aligned; the last one is shorter), as Dragonfly moves them:
 * four reads of 1 MiB make one request for 4 MiB, not four that each bring a piece to the node. A reader gets its part
 * of a piece as soon as that is there.
 */
export function pieceBlob(
  inner: RangedBlob,
  components: { cache: PieceCache },
  init: { pieceBytes: number },
): RangedBlob {
  const { digest, size } = inner;
  const { pieceBytes } = init;

  return {
    digest,
    size,
    async read(offset, length, options) {
      // Outside of the blob: the error is the inner one's to make.
      if (!(offset >= 0 && length > 0 && offset + length <= size)) return await inner.read(offset, length, options);
      const first = Math.floor(offset / pieceBytes);
      const end = Math.ceil((offset + length) / pieceBytes);
      const wanted = new Wanted(offset, length, options);
      const pieces = Array.from({ length: end - first }, (_, nth) => {
        const start = (first + nth) * pieceBytes;
        return components.cache.get(
          `${digest}/${first + nth}`,
          options,
          (own) => inner.read(start, Math.min(pieceBytes, size - start), own),
          (bytes, filled) => wanted.arrived(start, bytes, filled),
        );
      });
      for (const each of pieces) each.catch(() => {});
      for (const [nth, piece] of pieces.entries()) {
        const bytes = await piece;
        wanted.arrived((first + nth) * pieceBytes, bytes, bytes.byteLength);
      }
      return wanted.bytes;
    },
  };
}

/** What one read wants of several pieces. A copy: pieces are shared, and what a read returns is the caller's. */
class Wanted {
  readonly bytes: Uint8Array;
  readonly #offset: number;
  readonly #options: ReadOptions;
  #filled = 0;

  constructor(offset: number, length: number, options: ReadOptions) {
    this.bytes = takeBytes(length);
    this.#offset = offset;
    this.#options = options;
  }

  /** The first `filled` bytes of the piece at `start` are there; taken when they continue what is here. */
  arrived(start: number, piece: Uint8Array, filled: number): void {
    const at = this.#offset + this.#filled - start;
    if (at < 0 || at >= filled || this.#options.signal.aborted) return;
    const part = piece.subarray(at, Math.min(filled, at + this.bytes.byteLength - this.#filled));
    if (part.byteLength === 0) return;
    this.bytes.set(part, this.#filled);
    this.#filled += part.byteLength;
    this.#options.onBytes?.(this.bytes, this.#filled);
  }
}
