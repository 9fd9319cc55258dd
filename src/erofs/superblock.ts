import { BLOCK_BYTES } from '../core/block-map.ts';
import { ShoalError } from '../errors.ts';
import {
  BLOCK_BITS,
  COMPAT_MTIME,
  COMPAT_SB_CHKSUM,
  DEVICE_SLOT_BYTES,
  DEVICE_TABLE_OFFSET,
  DEVICE_TAG_BYTES,
  INCOMPAT_CHUNKED_FILE,
  INCOMPAT_DEVICE_TABLE,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_MAGIC,
  SUPERBLOCK_OFFSET,
} from './layout.ts';

/** An extra device of an image, in the order of the `device=` mount options. */
export interface ErofsDevice {
  /** At most 64 bytes of UTF-8; shoal puts the hex digest of the blob there. */
  readonly tag: string;
  /** Device length in 4096-byte blocks, below 2^32. */
  readonly blocks: number;
}

/** What the superblock says of the image. */
export interface Superblock {
  readonly inodes: number;
  readonly blocks: number;
  readonly rootNid: number;
  /** Base block of the shared xattrs. */
  readonly xattrBlock: number;
  /** 16 bytes; also statfs f_fsid. */
  readonly uuid: Uint8Array;
  readonly devices: readonly ErofsDevice[];
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ ((crc & 1) * 0x82f63b78);
  return crc >>> 0;
});

/** crc32c without the final inversion, as the EROFS superblock wants it (formats §1.3). */
export function crc32c(bytes: Uint8Array, seed = 0xffffffff): number {
  let crc = seed;
  for (let at = 0; at < bytes.byteLength; at += 1) {
    crc = (crc >>> 8) ^ (CRC32C_TABLE[(crc ^ (bytes[at] as number)) & 0xff] as number);
  }
  return crc >>> 0;
}

/** Writes superblock, device table and checksum into the first blocks of `image` (formats §1.2 to §1.4); call last. */
export function writeSuperblock(image: Uint8Array, superblock: Superblock): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const at = SUPERBLOCK_OFFSET;
  view.setUint32(at, SUPERBLOCK_MAGIC, true);
  view.setUint32(at + 8, COMPAT_SB_CHKSUM | COMPAT_MTIME, true);
  view.setUint8(at + 12, BLOCK_BITS);
  view.setUint16(at + 14, superblock.rootNid, true);
  view.setBigUint64(at + 16, BigInt(superblock.inodes), true);
  view.setUint32(at + 36, superblock.blocks, true);
  view.setUint32(at + 44, superblock.xattrBlock, true);
  image.set(superblock.uuid, at + 48);
  const devices = superblock.devices;
  view.setUint32(at + 80, INCOMPAT_CHUNKED_FILE | (devices.length > 0 ? INCOMPAT_DEVICE_TABLE : 0), true);
  view.setUint16(at + 86, devices.length, true);
  view.setUint16(at + 88, devices.length > 0 ? DEVICE_TABLE_OFFSET / DEVICE_SLOT_BYTES : 0, true);
  for (const [index, device] of devices.entries()) {
    const slot = DEVICE_TABLE_OFFSET + index * DEVICE_SLOT_BYTES;
    image.set(Buffer.from(device.tag, 'utf8'), slot);
    view.setUint32(slot + DEVICE_TAG_BYTES, device.blocks, true);
  }
  view.setUint32(at + 4, checksum(image), true);
}

/** Parses and checks superblock and device table of an image with 4096-byte blocks. Throws INVALID_LAYER. */
export function parseSuperblock(image: Uint8Array): Superblock {
  if (image.byteLength < BLOCK_BYTES) throw invalid('shorter than one block');
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const at = SUPERBLOCK_OFFSET;
  if (view.getUint32(at, true) !== SUPERBLOCK_MAGIC) throw invalid('no EROFS magic');
  if (view.getUint8(at + 12) !== BLOCK_BITS) throw invalid(`block size 2^${view.getUint8(at + 12)}`);
  const unknown = view.getUint32(at + 80, true) & ~(INCOMPAT_CHUNKED_FILE | INCOMPAT_DEVICE_TABLE);
  if (unknown !== 0) throw invalid(`feature bits 0x${(unknown >>> 0).toString(16)}`);
  if ((view.getUint32(at + 8, true) & COMPAT_SB_CHKSUM) !== 0 && view.getUint32(at + 4, true) !== checksum(image)) {
    throw invalid('superblock checksum differs');
  }
  if (view.getUint32(at + 40, true) !== 0) throw invalid('metadata that does not start at block 0');
  const blocks = view.getUint32(at + 36, true);
  if (blocks * BLOCK_BYTES > image.byteLength) throw invalid(`${blocks} blocks in ${image.byteLength} bytes`);
  return {
    inodes: Number(view.getBigUint64(at + 16, true)),
    blocks,
    rootNid: view.getUint16(at + 14, true),
    xattrBlock: view.getUint32(at + 44, true),
    uuid: image.slice(at + 48, at + 64),
    devices: parseDevices(image, view),
  };
}

function parseDevices(image: Uint8Array, view: DataView): ErofsDevice[] {
  const count = view.getUint16(SUPERBLOCK_OFFSET + 86, true);
  const table = view.getUint16(SUPERBLOCK_OFFSET + 88, true) * DEVICE_SLOT_BYTES;
  if (count > 0 && (table < SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES || table + count * DEVICE_SLOT_BYTES > image.length)) {
    throw invalid(`device table of ${count} slots at ${table}`);
  }
  const devices: ErofsDevice[] = [];
  for (let slot = table; slot < table + count * DEVICE_SLOT_BYTES; slot += DEVICE_SLOT_BYTES) {
    const tag = Buffer.from(image.subarray(slot, slot + DEVICE_TAG_BYTES)).toString('utf8');
    devices.push({ tag: tag.replace(/\0+$/, ''), blocks: view.getUint32(slot + DEVICE_TAG_BYTES, true) });
  }
  return devices;
}

/** Over the rest of the first block after byte 1024, with the checksum field taken as zero. */
function checksum(image: Uint8Array): number {
  const block = image.slice(SUPERBLOCK_OFFSET, BLOCK_BYTES);
  block.fill(0, 4, 8);
  return crc32c(block);
}

function invalid(what: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `EROFS image: ${what}`);
}
