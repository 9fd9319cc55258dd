import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import type { FileExtent, FileNode } from '../image/layer-tree.ts';
import { blocksFor, CHUNK_BITS_MASK, CHUNK_INDEX_BYTES, NO_BLOCK } from './layout.ts';
import type { ErofsDevice } from './superblock.ts';

/** How a file is cut into equal chunks: `count` chunks of `2 ** bits` blocks; `count` is 0 for an empty file. */
export interface ChunkShape {
  readonly bits: number;
  readonly count: number;
}

/**
 * The largest power-of-two chunk for which every chunk of the file is contiguous on one device or a hole, so that a
 * contiguous file needs one index (formats §1.6). Throws INVALID_LAYER for extents that are not sound.
 */
export function chunkShape(file: FileNode, devices: readonly ErofsDevice[]): ChunkShape {
  if (!Number.isSafeInteger(file.size) || file.size < 0) throw invalid(`size ${file.size}`);
  const blocks = blocksFor(file.size);
  if (blocks === 0 && file.extents.length === 0) return { bits: 0, count: 0 };
  let bits = Math.min(CHUNK_BITS_MASK, Math.ceil(Math.log2(Math.max(1, blocks))));
  let end = 0;
  let previous: FileExtent | undefined;
  for (const extent of file.extents) {
    checkExtent(extent, file.size, devices);
    const start = extent.fileOffset / BLOCK_BYTES;
    if (start < end) throw invalid(`extents overlap at byte ${extent.fileOffset}`);
    if (start > end || previous === undefined || !follows(previous, extent)) {
      bits = Math.min(bits, trailingZeros(end), trailingZeros(start));
    }
    end = start + blocksFor(extent.length);
    previous = extent;
  }
  if (end < blocks) bits = Math.min(bits, trailingZeros(end));
  return { bits, count: Math.ceil(blocks / 2 ** bits) };
}

/** Writes the chunk indexes of a file at byte `at`: 8 bytes each, device ids are device index + 1. */
export function writeChunkIndexes(view: DataView, at: number, file: FileNode, shape: ChunkShape): void {
  const step = 2 ** shape.bits;
  let row = 0;
  for (let chunk = 0; chunk < shape.count; chunk += 1) {
    const block = chunk * step;
    while (row < file.extents.length && endBlock(file.extents[row] as FileExtent) <= block) row += 1;
    const extent = file.extents[row];
    const entry = at + chunk * CHUNK_INDEX_BYTES;
    if (extent === undefined || extent.fileOffset / BLOCK_BYTES > block) {
      view.setUint32(entry + 4, NO_BLOCK, true);
    } else {
      view.setUint16(entry + 2, extent.device + 1, true);
      view.setUint32(entry + 4, extent.deviceOffset / BLOCK_BYTES + block - extent.fileOffset / BLOCK_BYTES, true);
    }
  }
}

function endBlock(extent: FileExtent): number {
  return extent.fileOffset / BLOCK_BYTES + blocksFor(extent.length);
}

/** True when `extent` continues `previous` on the same device; both are known to be adjacent in the file. */
function follows(previous: FileExtent, extent: FileExtent): boolean {
  return (
    extent.device === previous.device &&
    extent.deviceOffset === previous.deviceOffset + blocksFor(previous.length) * BLOCK_BYTES
  );
}

/** Number of trailing zero bits, at most 31; 0 counts as 31 because every chunk may start there. */
function trailingZeros(block: number): number {
  const low = block % 2 ** 31;
  return low === 0 ? 31 : 31 - Math.clz32(low & -low);
}

function checkExtent(extent: FileExtent, size: number, devices: readonly ErofsDevice[]): void {
  const { fileOffset, length, device, deviceOffset } = extent;
  const whole = [fileOffset, length, device, deviceOffset].every((value) => Number.isSafeInteger(value) && value >= 0);
  if (!whole || length === 0 || fileOffset % BLOCK_BYTES !== 0 || deviceOffset % BLOCK_BYTES !== 0) {
    throw invalid(`extent of ${length} bytes at ${fileOffset}, device offset ${deviceOffset}`);
  }
  if (fileOffset + length > size) throw invalid(`extent ends at ${fileOffset + length}, file at ${size}`);
  const room = devices[device]?.blocks;
  if (room === undefined || deviceOffset / BLOCK_BYTES + blocksFor(length) > room) {
    throw invalid(`extent ends beyond device ${device}`);
  }
}

function invalid(what: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `file data: ${what}`);
}
