/** A place in a compressed stream from which decoding can start. */
export interface ScanPoint {
  /** First byte to fetch. */
  readonly inOffset: number;
  /** What has been decoded before it, bytes. */
  readonly outOffset: number;
  /** High bits of the first byte that belong to what follows; 0: all of it. */
  readonly bits: number;
  /** Packed window (`packWindow`) that decoding needs; undefined when it needs none. */
  window: Uint8Array | undefined;
}

/** Decodes a layer once, from its first byte to its last, and notes where decoding could start again. */
export interface PassScanner {
  /** Places noted so far, ascending. */
  readonly points: readonly ScanPoint[];
  /** The next bytes of the blob, memory of their own. Throws INVALID_LAYER, UNSUPPORTED_LAYER or TOO_LARGE. */
  write(bytes: Uint8Array): void;
  /** No more come; throws INVALID_LAYER when more should have. */
  end(): void;
  /** How many bytes of the blob make at least the first `outOffset` bytes of output. */
  inputFor(outOffset: number): number;
  /** Frees what the decoder holds. Idempotent. */
  close(): void;
}

/** How much input made how much output, step by step. */
export class Progress {
  readonly #out: number[] = [];
  readonly #in: number[] = [];

  note(outOffset: number, inOffset: number): void {
    this.#out.push(outOffset);
    this.#in.push(inOffset);
  }

  inputFor(outOffset: number): number {
    let low = 0;
    let high = this.#out.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#out[middle] as number) < outOffset) low = middle + 1;
      else high = middle;
    }
    return this.#in[low] ?? 0;
  }
}
