/**
 * zlib's public interface starts at a byte, a deflate block anywhere in one. Empty blocks before it move the start: an
 * empty block of fixed codes has 10 bits, one of dynamic codes 93, and together they end at any bit of a byte
 * (RFC 1951 §3.2).
 */

/** An empty block of fixed codes: not last, type 01, end-of-block 0000000; first bit first. */
const FIXED = '0100000000';
/**
 * An empty block of dynamic codes: not last, type 10, 257 literal and 1 distance code, all 19 code lengths sent, of which
 * only 1 and 18 (a run of zeros) have a code. Then 138 and 118 zeros, length 1 for end-of-block and for the distance, and
 * the end-of-block.
 */
const DYNAMIC = ['001', '00000', '00000', '1111', codeLengths(), zeros(138), zeros(118), '0', '0', '0'].join('');

/** Order in which code lengths are sent (RFC 1951 §3.2.7). */
function codeLengths(): string {
  const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  return order.map((symbol) => (symbol === 1 || symbol === 18 ? '100' : '000')).join('');
}

/** Symbol 18 (its code is 1; that of symbol 1 is 0) and how many zeros beyond 11, low bit first. */
function zeros(count: number): string {
  return `1${[...(count - 11).toString(2).padStart(7, '0')].reverse().join('')}`;
}

/** For each start bit 0 to 7: the whole bytes of the prefix, and the low bits of the byte in which the data starts. */
const PREFIXES = Array.from({ length: 8 }, (_, startBit) => {
  let bits = startBit % 2 === 0 ? '' : DYNAMIC;
  while (bits.length % 8 !== startBit) bits += FIXED;
  const bytes = (bits.match(/.{1,8}/g) ?? []).map((group) => Number.parseInt([...group].reverse().join(''), 2));
  return startBit === 0 ? { whole: [], low: 0 } : { whole: bytes.slice(0, -1), low: bytes.at(-1) as number };
});

/**
 * What to feed an inflater in place of the first byte of a deflate stream that starts with the `bits` high bits of that
 * byte (0: with all of it).
 */
export function startAtBit(firstByte: number, bits: number): Uint8Array {
  const startBit = (8 - bits) % 8;
  const { whole, low } = PREFIXES[startBit] as (typeof PREFIXES)[number];
  return Uint8Array.from([...whole, (firstByte & ~((1 << startBit) - 1)) | low]);
}
