import koffi from 'koffi';

/** What direct I/O asks for at most: a page, or a block of the disk. */
const ALIGNMENT = 4096;

/** `length` bytes with anything in them, at an address that direct I/O takes. */
export function alignedBytes(length: number): Uint8Array<ArrayBuffer> {
  const { buffer } = Buffer.allocUnsafeSlow(length + ALIGNMENT);
  const address: bigint = koffi.address(new Uint8Array(buffer));
  const past = Number(address % BigInt(ALIGNMENT));
  return Buffer.from(buffer, (ALIGNMENT - past) % ALIGNMENT, length);
}
