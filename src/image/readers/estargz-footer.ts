/** Length of an eStargz footer; the two other kinds are shorter. */
export const FOOTER_BYTES = 51;
const LEGACY_FOOTER_BYTES = 47;
const EXTERNAL_FOOTER_BYTES = 46;

/** Where the table of contents is: at `tocOffset` of the blob up to `tocEnd`, or in another image. */
export type EstargzFooter =
  | { readonly kind: 'inline'; readonly tocOffset: number; readonly tocEnd: number }
  | { readonly kind: 'external' };

/**
 * Reads the footer from the last bytes (at most FOOTER_BYTES) of a blob of `blobSize` bytes: an empty gzip member
 * whose extra field names the TOC offset. Undefined when there is none. Spec: stargz-snapshotter docs/estargz.md#footer;
 * the 47-byte footer is that of CRFS stargz.
 */
export function parseEstargzFooter(tail: Uint8Array, blobSize: number): EstargzFooter | undefined {
  const sized = (bytes: number): string | undefined =>
    tail.byteLength < bytes ? undefined : extraField(tail.subarray(tail.byteLength - bytes));
  const modern = sized(FOOTER_BYTES);
  if (modern?.startsWith('SG\x16\0') === true) return inlineFooter(modern.slice(4), blobSize, FOOTER_BYTES);
  const legacy = sized(LEGACY_FOOTER_BYTES);
  if (legacy !== undefined) return inlineFooter(legacy, blobSize, LEGACY_FOOTER_BYTES);
  if (sized(EXTERNAL_FOOTER_BYTES) === 'SG\x11\0STARGZEXTERNALTOC') return { kind: 'external' };
  return undefined;
}

function inlineFooter(text: string, blobSize: number, footerBytes: number): EstargzFooter | undefined {
  if (!/^[0-9a-f]{16}STARGZ$/.test(text)) return undefined;
  const tocOffset = Number.parseInt(text.slice(0, 16), 16);
  const tocEnd = blobSize - footerBytes;
  return tocOffset < tocEnd ? { kind: 'inline', tocOffset, tocEnd } : undefined;
}

/** The extra field of an empty gzip member that fills `bytes`, one char per byte. */
function extraField(bytes: Uint8Array): string | undefined {
  const [magic1, magic2, method, flags] = bytes;
  if (magic1 !== 0x1f || magic2 !== 0x8b || method !== 8 || flags !== 4) return undefined;
  // 10 bytes of header and 2 of length before; an empty deflate block (5), CRC and length (8) after.
  const length = (bytes[10] as number) | ((bytes[11] as number) << 8);
  if (length !== bytes.byteLength - 12 - 13) return undefined;
  return String.fromCharCode(...bytes.subarray(12, 12 + length));
}
