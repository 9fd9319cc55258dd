import { ShoalError } from '../../errors.ts';

/** A part of a layer that decodes by itself. */
export interface Span {
  /** First byte in the layer to fetch, and the first one after it. */
  readonly start: number;
  readonly end: number;
  /** High bits of the first byte that belong to it; 0: all of it. */
  readonly bits: number;
  /** What has been decoded before it, bytes. */
  readonly outStart: number;
  /** 32 KiB of output before it, a view; undefined when it needs none. */
  readonly window: Uint8Array | undefined;
}

/** What the checkpoints of a ztoc say. */
export interface Spans {
  readonly spans: readonly Span[];
  readonly impliesStart: boolean;
}

const WINDOW_BYTES = 32 * 1024;
const HEADER_BYTES = 12;
const CHECKPOINT_BYTES = 8 + 8 + 1 + WINDOW_BYTES;
/** A gzip header without name or extra fields (RFC 1952): where the first checkpoint is when none is written. */
const GZIP_HEADER_BYTES = 10;
const TAR_INFO_BYTES = 4 + 8 + 8;
/** Spans of one uncompressed layer: its index has a digest for each. */
const MAX_SPANS = 4_000_000;

/**
 * The checkpoints of a gzip layer, little-endian: their count (32 bits) and a span's size (64), then of each where it is in
 * the layer (64) and in its output (64), the bits (8) and the window. The first version leaves the first checkpoint out.
 * Throws INVALID_LAYER.
 */
export function gzipSpans(blob: Buffer, compressedSize: number): Spans {
  if (blob.byteLength < HEADER_BYTES) throw invalid('has no checkpoints');
  const count = blob.readInt32LE(0);
  const written = (blob.byteLength - HEADER_BYTES) / CHECKPOINT_BYTES;
  if (!Number.isInteger(written) || count < 1 || (written !== count && written !== count - 1)) {
    throw invalid(`names ${count} checkpoints and has ${written}`);
  }
  const impliesStart = written === count - 1;
  const points = Array.from({ length: written }, (_, index) => pointAt(blob, HEADER_BYTES + index * CHECKPOINT_BYTES));
  if (impliesStart) points.unshift({ at: GZIP_HEADER_BYTES, out: 0, bits: 0, window: undefined });
  const spans: Span[] = [];
  for (const [index, { at, out, bits, window }] of points.entries()) {
    const start = bits === 0 ? at : at - 1;
    const end = points[index + 1]?.at ?? compressedSize;
    const before = spans.at(-1);
    const ascends = before === undefined ? out === 0 && start > 0 : start > before.start && out >= before.outStart;
    if (!ascends || bits > 7 || end <= start || end > compressedSize)
      throw invalid(`has checkpoint ${index} out of place`);
    spans.push({ start, end, bits, outStart: out, window: out === 0 ? undefined : window });
  }
  return { spans, impliesStart };
}

/** The spans of a layer that is not compressed: version (32 bits), a span's size (64), the layer's (64). Throws INVALID_LAYER. */
export function tarSpans(blob: Buffer, compressedSize: number): Spans {
  if (blob.byteLength !== TAR_INFO_BYTES) throw invalid('does not say how the layer is cut');
  const spanSize = numberAt(blob, 4);
  if (spanSize <= 0 || numberAt(blob, 12) !== compressedSize || compressedSize / spanSize > MAX_SPANS) {
    throw invalid('cuts the layer in an impossible way');
  }
  const spans = Array.from({ length: Math.ceil(compressedSize / spanSize) }, (_, index) => {
    const start = index * spanSize;
    return { start, end: Math.min(start + spanSize, compressedSize), bits: 0, outStart: start, window: undefined };
  });
  return { spans, impliesStart: false };
}

function pointAt(blob: Buffer, at: number): { at: number; out: number; bits: number; window: Uint8Array | undefined } {
  return {
    at: numberAt(blob, at),
    out: numberAt(blob, at + 8),
    bits: blob.readUInt8(at + 16),
    window: blob.subarray(at + 17, at + CHECKPOINT_BYTES),
  };
}

function numberAt(blob: Buffer, at: number): number {
  const value = Number(blob.readBigInt64LE(at));
  if (!Number.isSafeInteger(value) || value < 0) throw invalid(`has the offset ${value}`);
  return value;
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a ztoc ${why}`);
}
