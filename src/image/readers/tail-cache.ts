import type { RangedBlob } from '../layer-reader.ts';

/**
 * How much is read at once from the end of a blob. Footers and indexes live there: 1 MiB holds the index of about
 * 20,000 files, so most layers cost one request, and that request takes hardly longer than one for a footer.
 */
const TAIL_BYTES = 1024 * 1024;

/** `blob` with its tail read at most once, on the first read that touches it; a read that starts before takes the rest. */
export function cacheTail(blob: RangedBlob, tailBytes: number = TAIL_BYTES): RangedBlob {
  return new TailCachedBlob(blob, Math.max(0, blob.size - tailBytes));
}

class TailCachedBlob implements RangedBlob {
  readonly #blob: RangedBlob;
  readonly #tailStart: number;
  #tail: Promise<Uint8Array> | undefined;

  constructor(blob: RangedBlob, tailStart: number) {
    this.#blob = blob;
    this.#tailStart = tailStart;
  }

  get digest(): RangedBlob['digest'] {
    return this.#blob.digest;
  }

  get size(): number {
    return this.#blob.size;
  }

  async read(offset: number, length: number, options: { signal: AbortSignal }): Promise<Uint8Array> {
    const start = this.#tailStart;
    const end = offset + length;
    if (end <= start || end > this.size) return this.#blob.read(offset, length, options);
    this.#tail ??= this.#readTail(options);
    const tail = await this.#tail;
    if (offset >= start) return tail.subarray(offset - start, end - start);
    const front = await this.#blob.read(offset, start - offset, options);
    return Buffer.concat([front, tail.subarray(0, end - start)]);
  }

  #readTail(options: { signal: AbortSignal }): Promise<Uint8Array> {
    const reading = this.#blob.read(this.#tailStart, this.size - this.#tailStart, options);
    // A failed read is not remembered: the next one tries again.
    reading.catch(() => {
      this.#tail = undefined;
    });
    return reading;
  }
}
