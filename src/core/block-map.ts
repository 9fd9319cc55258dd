/** Size of a device block in bytes: the EROFS block, the page, and the grain of presence. */
export const BLOCK_BYTES = 4096;

/**
 * Which 4 KiB blocks of a device hold verified data: one bit per block, little-endian bit order within each byte,
 * in shared memory so that a trap's own thread can answer for ranges that are already there.
 */
export class BlockMap {
  readonly blockCount: number;
  readonly bytes: Uint8Array<SharedArrayBuffer>;
  #missing: number;

  /** A map of `blockCount` blocks, all absent unless `initial` (from `bytes`) says otherwise. */
  constructor(blockCount: number, initial?: Uint8Array) {
    this.blockCount = blockCount;
    this.bytes = new Uint8Array(new SharedArrayBuffer(Math.max(1, Math.ceil(blockCount / 8))));
    if (initial !== undefined) this.bytes.set(initial.subarray(0, this.bytes.byteLength));
    const spare = blockCount % 8;
    const last = this.bytes.byteLength - 1;
    if (spare !== 0) this.bytes[last] = (this.bytes[last] as number) & ((1 << spare) - 1);
    if (blockCount === 0) this.bytes[0] = 0;
    this.#missing = blockCount - popcount(this.bytes);
  }

  /** Blocks that are still absent. */
  get missing(): number {
    return this.#missing;
  }

  /** True when every block of the device is present. */
  get complete(): boolean {
    return this.#missing === 0;
  }

  /** True when all blocks in [first, end) are present; false for a range that passes the end of the device. */
  hasRange(first: number, end: number): boolean {
    return end <= this.blockCount && blocksPresent(this.bytes, first, end);
  }

  /** Marks blocks [first, end) present. Call only after their verified bytes were written. */
  setRange(first: number, end: number): void {
    this.#apply(first, Math.min(end, this.blockCount), (index, mask) => {
      const before = Atomics.or(this.bytes, index, mask);
      this.#missing -= popcountByte(mask & ~before);
    });
  }

  /** Marks blocks [first, end) absent: their bytes turned out not to be what they should be. */
  clearRange(first: number, end: number): void {
    this.#apply(first, Math.min(end, this.blockCount), (index, mask) => {
      const before = Atomics.and(this.bytes, index, ~mask & 0xff);
      this.#missing += popcountByte(mask & before);
    });
  }

  #apply(first: number, end: number, change: (index: number, mask: number) => void): void {
    let block = first;
    while (block < end) {
      const bit = block & 7;
      const bits = Math.min(8 - bit, end - block);
      change(block >>> 3, ((1 << bits) - 1) << bit);
      block += bits;
    }
  }
}

/** Reads presence from the raw bitmap bytes: what a trap thread uses on the shared copy. `end` must be in bounds. */
export function blocksPresent(bytes: Uint8Array, first: number, end: number): boolean {
  let block = first;
  while (block < end) {
    if ((block & 7) === 0 && block + 8 <= end) {
      if (bytes[block >>> 3] !== 0xff) return false;
      block += 8;
    } else {
      if (((bytes[block >>> 3] as number) & (1 << (block & 7))) === 0) return false;
      block += 1;
    }
  }
  return true;
}

function popcount(bytes: Uint8Array): number {
  let count = 0;
  for (const byte of bytes) count += popcountByte(byte);
  return count;
}

function popcountByte(byte: number): number {
  const pairs = byte - ((byte >> 1) & 0x55);
  const nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33);
  return (nibbles + (nibbles >> 4)) & 0x0f;
}
