/** Bytes of the longer footer with its skippable frame's header. */
export const ZSTDCHUNKED_FOOTER_BYTES = 72;

/** Skippable frame, as its first bytes. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const FRAME_HEADER_BYTES = 8;
/** `GNUlInUx` and `GnUlInUx`, little-endian. */
const MAGIC = 0x78556e496c554e47n;
const MAGIC_2022 = 0x78556e496c556e47n;
/** The one type of manifest there is. */
const TYPE_CRFS = 1;

/** A range of the blob that decodes to `decodedLength` bytes; byte offsets and lengths. */
export interface CodedRange {
  readonly offset: number;
  readonly length: number;
  readonly decodedLength: number;
}

/**
 * True when the blob ends with a zstd:chunked footer: a skippable frame of 64 bytes (containers/storage), or of 40 in
 * its first generation and in layers of stargz tools. Where it points is not believed: the annotations say that.
 */
export function hasZstdchunkedFooter(tail: Uint8Array): boolean {
  return isFooter(tail, 64, MAGIC) || isFooter(tail, 40, MAGIC_2022);
}

function isFooter(tail: Uint8Array, payloadBytes: number, magic: bigint): boolean {
  const at = tail.byteLength - payloadBytes - FRAME_HEADER_BYTES;
  if (at < 0) return false;
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  return (
    view.getUint32(at, true) === SKIPPABLE_MAGIC &&
    view.getUint32(at + 4, true) === payloadBytes &&
    view.getBigUint64(tail.byteLength - 8, true) === magic
  );
}

/** Where the footer says the TOC is: a hint, for layers whose TOC is pinned by the digest of its JSON only. */
export function footerPosition(tail: Uint8Array): CodedRange | undefined {
  if (!hasZstdchunkedFooter(tail)) return undefined;
  const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
  const at = tail.byteLength - (isFooter(tail, 64, MAGIC) ? 64 : 40);
  const fields = [0, 8, 16, 24].map((field) => String(view.getBigUint64(at + field, true)));
  return parseManifestPosition(fields.join(':'));
}

/** Reads `offset:length:decodedLength:1`, the annotation manifest-position; undefined for anything else. */
export function parseManifestPosition(text: string): CodedRange | undefined {
  const match = /^(\d{1,16}):(\d{1,16}):(\d{1,16}):(\d{1,3})$/.exec(text);
  if (match === null || Number(match[4]) !== TYPE_CRFS) return undefined;
  const [offset, length, decodedLength] = match.slice(1, 4).map(Number) as [number, number, number];
  if (![offset, length, decodedLength].every(Number.isSafeInteger) || length === 0 || decodedLength === 0) {
    return undefined;
  }
  return { offset, length, decodedLength };
}
