/** `length` bytes from `offset` of file `seed`: none is zero, so a hole can never pass for data. */
export function patternBytes(seed: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i += 1) bytes[i] = patternByte(seed, offset + i);
  return bytes;
}

/** Index of the first byte that is not the pattern's, or -1. */
export function firstDifference(seed: number, offset: number, bytes: Uint8Array): number {
  for (let i = 0; i < bytes.length; i += 1) if (bytes[i] !== patternByte(seed, offset + i)) return i;
  return -1;
}

function patternByte(seed: number, at: number): number {
  const mixed = Math.imul(at ^ Math.imul(seed, 0x9e3779b1), 0x85ebca6b) ^ (at >>> 11);
  return ((mixed >>> 16) % 255) + 1;
}
