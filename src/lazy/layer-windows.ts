import type { Digest } from '../core/digest.ts';
import { ShoalError } from '../errors.ts';
import { readWindow } from '../image/pass/windows.ts';
import type { BlobDevice } from '../store/blob-device.ts';
import type { BlobStore } from '../store/blob-store.ts';

/** Read at once: some 25 windows, which a sequential reader needs one after the other. */
const PART_BYTES = 64 * 1024;
/** Parts kept, of all layers: those of as many readers, with the starts of their files, where the windows' places are. */
const MAX_PARTS = 16;

interface Part {
  /** Of this device, not just this layer: one that is made anew may have other windows. */
  readonly device: BlobDevice | undefined;
  readonly index: number;
  readonly bytes: Promise<Uint8Array>;
}

/**
 * Reads deflate windows of plain layers from the store: a window of 2 KiB alone cost six trips to the thread pool, more
 * than decoding what it is for takes the main thread. What it gives rejects with STATE_CORRUPT, NOT_FOUND or STORE_IO.
 */
export function windowsOf(
  blobs: Pick<BlobStore, 'readWindows' | 'opened'>,
): (blob: Digest, row: number) => Promise<Uint8Array> {
  /** Most recently used last. */
  const parts: Part[] = [];

  function partOf(blob: Digest, index: number): Promise<Uint8Array> {
    const device = blobs.opened(blob);
    const at = parts.findIndex((part) => part.device === device && part.index === index);
    const [known] = at === -1 || device === undefined ? [] : parts.splice(at, 1);
    const part = known ?? { device, index, bytes: blobs.readWindows(blob, index * PART_BYTES, PART_BYTES) };
    if (known === undefined) part.bytes.catch(() => forget(part));
    if (device !== undefined) parts.push(part);
    if (parts.length > MAX_PARTS) parts.shift();
    return part.bytes;
  }

  function forget(part: Part): void {
    const at = parts.indexOf(part);
    if (at !== -1) parts.splice(at, 1);
  }

  async function read(blob: Digest, offset: number, length: number): Promise<Uint8Array> {
    const end = offset + length;
    const found: Uint8Array[] = [];
    for (let index = Math.floor(offset / PART_BYTES); index * PART_BYTES < end; index += 1) {
      const start = index * PART_BYTES;
      found.push((await partOf(blob, index)).subarray(Math.max(0, offset - start), end - start));
    }
    const bytes = found.length === 1 ? (found[0] as Uint8Array) : Buffer.concat(found);
    if (bytes.byteLength < length) throw new ShoalError('STATE_CORRUPT', `the windows of layer ${blob} are cut short`);
    return bytes;
  }

  return (blob, row) => readWindow(row, (offset, length) => read(blob, offset, length));
}
