import { BLOCK_BYTES } from '../../core/block-map.ts';
import type { ChunkTable, Codec } from '../../core/chunk-table.ts';
import { ChunkTableBuilder } from '../../core/chunk-table-builder.ts';
import type { PassScanner } from './scanner.ts';

/** A chunk as the pass saw it. */
export interface ChunkRowInput {
  /** First block on the device. */
  readonly deviceBlock: number;
  readonly length: number;
  /** Where its bytes start in the uncompressed layer. */
  readonly tarOffset: number;
  /** SHA-256, hex. */
  readonly digest: string;
}

/** How the chunks of a layer are obtained again: from the tar as it is, or from places where decoding can start. */
export type Obtained =
  | { readonly codec: 'none' }
  | { readonly codec: 'deflate' | 'zstd'; readonly scanner: Pick<PassScanner, 'points' | 'inputFor'> };

/**
 * The longest compressed range and the longest output of one extent: a cold read of any of its chunks costs all of it.
 * Longer ones come from streams without block boundaries, such as zstd in one frame.
 */
const MAX_EXTENT_BYTES = 16 * 1024 * 1024;
const DIGEST_BYTES = 32;

/** The chunks of a pass, ascending both on the device and in the tar. */
export class ChunkRows {
  readonly #blocks: number[] = [];
  readonly #lengths: number[] = [];
  readonly #tarOffsets: number[] = [];
  #digests = Buffer.allocUnsafeSlow(DIGEST_BYTES * 1024);

  get count(): number {
    return this.#lengths.length;
  }

  add({ deviceBlock, length, tarOffset, digest }: ChunkRowInput): void {
    const at = DIGEST_BYTES * this.count;
    if (at === this.#digests.byteLength) this.#digests = Buffer.from(this.#digests.buffer.transfer(2 * at));
    this.#digests.write(digest, at, 'hex');
    this.#blocks.push(deviceBlock);
    this.#lengths.push(length);
    this.#tarOffsets.push(tarOffset);
  }

  /**
   * The table, and the windows it names in the order it counts them. A chunk that no range of bearable length yields
   * becomes one of codec `stream`.
   */
  table(compressedSize: number, obtained: Obtained): { chunks: ChunkTable; windows: readonly Uint8Array[] } {
    const windows: Uint8Array[] = [];
    const builder = new ChunkTableBuilder({ compressedSize });
    const spans = obtained.codec === 'none' ? undefined : this.#spans(obtained.scanner, compressedSize, windows);
    for (let row = 0; row < this.count; row += 1) {
      const length = this.#lengths[row] as number;
      const tarOffset = this.#tarOffsets[row] as number;
      const place = spans === undefined ? inTar(tarOffset, length) : spans(row, obtained.codec);
      builder.addRaw(
        { deviceOffset: (this.#blocks[row] as number) * BLOCK_BYTES, length, ...place },
        this.#digests.subarray(DIGEST_BYTES * row, DIGEST_BYTES * (row + 1)),
      );
    }
    return { chunks: builder.build(), windows };
  }

  /** Where each chunk is, given that a span goes on until the last chunk that starts in it is whole. */
  #spans(scanner: Pick<PassScanner, 'points' | 'inputFor'>, compressedSize: number, windows: Uint8Array[]) {
    const { points } = scanner;
    const spanOf = new Int32Array(this.count);
    const outEnd = new Float64Array(points.length);
    let span = -1;
    for (let row = 0; row < this.count; row += 1) {
      const tarOffset = this.#tarOffsets[row] as number;
      while (span + 1 < points.length && (points[span + 1]?.outOffset ?? 0) <= tarOffset) span += 1;
      spanOf[row] = span;
      if (span >= 0) outEnd[span] = tarOffset + (this.#lengths[row] as number);
    }
    // Only those that a chunk needs: no chunk may start in a span.
    const windowRows = new Map<number, number>();
    const windowRow = (index: number, window: Uint8Array | undefined): number | undefined => {
      if (window === undefined) return undefined;
      const known = windowRows.get(index) ?? windows.push(window) - 1;
      windowRows.set(index, known);
      return known;
    };
    return (row: number, codec: Codec): Place => {
      const index = spanOf[row] as number;
      const point = points[index];
      if (point === undefined) return onlyInStream(compressedSize);
      const end = outEnd[index] as number;
      const extentLength = scanner.inputFor(end) - point.inOffset;
      if (extentLength > MAX_EXTENT_BYTES || end - point.outOffset > MAX_EXTENT_BYTES)
        return onlyInStream(compressedSize);
      return {
        codec,
        extentOffset: point.inOffset,
        extentLength,
        innerOffset: (this.#tarOffsets[row] as number) - point.outOffset,
        checkpoint: { bits: point.bits, window: windowRow(index, point.window) },
      };
    };
  }
}

interface Place {
  readonly codec: Codec;
  readonly extentOffset: number;
  readonly extentLength: number;
  readonly innerOffset: number;
  readonly checkpoint?: { readonly bits: number; readonly window: number | undefined };
}

function inTar(tarOffset: number, length: number): Place {
  return { codec: 'none', extentOffset: tarOffset, extentLength: length, innerOffset: 0 };
}

function onlyInStream(compressedSize: number): Place {
  return { codec: 'stream', extentOffset: 0, extentLength: Math.min(compressedSize, MAX_EXTENT_BYTES), innerOffset: 0 };
}
