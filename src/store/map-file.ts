import { hash } from 'node:crypto';
import type { Digest } from '../core/digest.ts';
import { readFully, writeFully } from './file-io.ts';

/**
 * The persisted bitmap of a device: two slots in one file, each a page of header and the whole bitmap under one
 * SHA-256. A write goes to the older slot, so a torn write costs that slot only and the other still tells the truth as
 * it was a second earlier. Preferred to rename (no new inode or directory sync per flush, and no space needed when the
 * disk is full, because both slots are allocated at creation) and to a checksum per page (which could join pages of
 * different times). It writes 32 KiB per GiB of device and flush.
 */
const MAGIC = 0x4d424853; // "SHBM"
const VERSION = 1;
const HEADER_BYTES = 4096;
/** magic u32, version u32, blockCount u64, sequence u64, sha256 of the blob's digest, then the checksum. */
const HASHED_HEADER_BYTES = 56;

/** Both slots of a new map file: the first holds `bitmap`, the second is zeros. */
export function newMapFile(blob: Digest, blockCount: number, bitmap: Uint8Array): Uint8Array {
  const slotBytes = slotSize(blockCount);
  const bytes = new Uint8Array(2 * slotBytes);
  bytes.set(encodeSlot(blob, blockCount, 1, bitmap));
  return bytes;
}

/** The map file of one device, open for writing. Not for concurrent use. */
export interface MapFile {
  /** Replaces the older slot with this bitmap. Durable only after an fdatasync of the file. */
  write(bitmap: Uint8Array): Promise<void>;
}

/** Reads the newer valid slot of an open map file; undefined when neither is valid. */
export async function loadMapFile(
  fd: number,
  blob: Digest,
  blockCount: number,
): Promise<{ file: MapFile; bitmap: Uint8Array } | undefined> {
  const size = slotSize(blockCount);
  const bytes = new Uint8Array(2 * size);
  await readFully(fd, bytes, 0);
  const first = decodeSlot(bytes.subarray(0, size), blob, blockCount);
  const second = decodeSlot(bytes.subarray(size), blob, blockCount);
  let slot = (second?.sequence ?? -1) > (first?.sequence ?? -1) ? 1 : 0;
  const newest = slot === 1 ? second : first;
  if (newest === undefined) return undefined;
  let sequence = newest.sequence;
  const file: MapFile = {
    async write(bitmap) {
      const older = 1 - slot;
      await writeFully(fd, encodeSlot(blob, blockCount, sequence + 1, bitmap), older * size);
      slot = older;
      sequence += 1;
    },
  };
  return { file, bitmap: newest.bitmap };
}

function slotSize(blockCount: number): number {
  return HEADER_BYTES + Math.ceil(Math.ceil(blockCount / 8) / 4096) * 4096;
}

function encodeSlot(blob: Digest, blockCount: number, sequence: number, bitmap: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(slotSize(blockCount));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setBigUint64(8, BigInt(blockCount), true);
  view.setBigUint64(16, BigInt(sequence), true);
  bytes.set(hash('sha256', blob, 'buffer'), 24);
  bytes.set(bitmap.subarray(0, Math.ceil(blockCount / 8)), HEADER_BYTES);
  bytes.set(checksum(bytes), HASHED_HEADER_BYTES);
  return bytes;
}

function decodeSlot(
  bytes: Uint8Array,
  blob: Digest,
  blockCount: number,
): { sequence: number; bitmap: Uint8Array } | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) return undefined;
  if (view.getBigUint64(8, true) !== BigInt(blockCount)) return undefined;
  if (Buffer.compare(bytes.subarray(24, 56), hash('sha256', blob, 'buffer')) !== 0) return undefined;
  const stored = bytes.subarray(HASHED_HEADER_BYTES, HASHED_HEADER_BYTES + 32);
  if (Buffer.compare(stored, checksum(bytes)) !== 0) return undefined;
  return { sequence: Number(view.getBigUint64(16, true)), bitmap: bytes.subarray(HEADER_BYTES) };
}

function checksum(bytes: Uint8Array): Uint8Array {
  const bitmap = hash('sha256', bytes.subarray(HEADER_BYTES), 'buffer');
  return hash('sha256', Buffer.concat([bytes.subarray(0, HASHED_HEADER_BYTES), bitmap]), 'buffer');
}
