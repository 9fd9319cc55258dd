import { type Digest, sha256 } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import type { RangedBlob } from '../../src/image/layer-reader.ts';

/** A blob in memory that remembers what was read of it; override `onRead` to fail. */
export class MemoryBlob implements RangedBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly bytes: Uint8Array;
  readonly reads: { offset: number; length: number }[] = [];
  onRead: (offset: number, length: number) => void = () => {};

  constructor(bytes: Uint8Array, digest: Digest = sha256(bytes)) {
    this.bytes = bytes;
    this.size = bytes.byteLength;
    this.digest = digest;
  }

  async read(offset: number, length: number, { signal }: { signal: AbortSignal }): Promise<Uint8Array> {
    signal.throwIfAborted();
    this.reads.push({ offset, length });
    this.onRead(offset, length);
    if (!Number.isSafeInteger(offset) || offset < 0 || !(length > 0) || offset + length > this.size) {
      throw new ShoalError('RANGE_MISMATCH', `${length} bytes at ${offset} of ${this.size}`);
    }
    return this.bytes.subarray(offset, offset + length);
  }
}
