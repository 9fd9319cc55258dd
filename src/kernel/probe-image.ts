/** Bytes of the image and of its only device: one EROFS block each. */
export const PROBE_BYTES = 4096;

const SUPERBLOCK = 1024;
const DEVICE_TABLE = 1152;
const ROOT_INODE = 1280;
const INODE_BYTES = 32;
const DIRENT_BYTES = 12;

/** The smallest EROFS image that has one extra device and an empty root directory (formats §1.2–1.7), for trying a mount. */
export function probeImage(): Uint8Array {
  const image = Buffer.alloc(PROBE_BYTES);
  image.writeUInt32LE(0xe0f5e1e2, SUPERBLOCK);
  image.writeUInt8(12, SUPERBLOCK + 12); // blkszbits: 4 KiB
  image.writeUInt16LE(ROOT_INODE / INODE_BYTES, SUPERBLOCK + 14);
  image.writeBigUInt64LE(1n, SUPERBLOCK + 16); // inos
  image.writeUInt32LE(1, SUPERBLOCK + 36); // blocks
  image.writeUInt32LE(0x4 | 0x8, SUPERBLOCK + 80); // CHUNKED_FILE, DEVICE_TABLE
  image.writeUInt16LE(1, SUPERBLOCK + 86); // extra_devices
  image.writeUInt16LE(DEVICE_TABLE / 128, SUPERBLOCK + 88);
  image.writeUInt32LE(1, DEVICE_TABLE + 64); // device blocks

  const names = '...'; // "." then ".."
  image.writeUInt16LE(0x04, ROOT_INODE); // compact, inline
  image.writeUInt16LE(0o040755, ROOT_INODE + 4);
  image.writeUInt16LE(2, ROOT_INODE + 6);
  image.writeUInt32LE(2 * DIRENT_BYTES + names.length, ROOT_INODE + 8);
  const body = ROOT_INODE + INODE_BYTES;
  for (const [index, nameOffset] of [2 * DIRENT_BYTES, 2 * DIRENT_BYTES + 1].entries()) {
    const dirent = body + index * DIRENT_BYTES;
    image.writeBigUInt64LE(BigInt(ROOT_INODE / INODE_BYTES), dirent);
    image.writeUInt16LE(nameOffset, dirent + 8);
    image.writeUInt8(2, dirent + 10);
  }
  image.write(names, body + 2 * DIRENT_BYTES, 'latin1');
  return image;
}
