import { constants, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { uncompress } from 'lz4-napi';
import { freeBytes, takeBytes } from '../core/byte-pool.ts';
import type { Codec } from '../core/chunk-table.ts';
import { ShoalError } from '../errors.ts';
import { type InflateStart, inflateOnThread } from '../kernel/thread-inflate.ts';
import { zstdOnThread } from '../kernel/thread-zstd.ts';

/**
 * Extents that decode to at most this many bytes are decoded on the calling thread: up to here that costs less CPU
 * (81 µs against 135 at 32 KiB) than a stream and its trip to the thread pool, and holds the event loop < 0.1 ms.
 */
const INLINE_DECODED_BYTES = 32 * 1024;
/** Nor may the compressed side be long: empty deflate blocks cost time and yield nothing. */
const INLINE_CODED_BYTES = 64 * 1024;
/** What an eStargz member holds after its chunk in the usual case: tar padding and a header or two. */
const INLINE_SLACK_BYTES = 4096;

/** log2 of the largest zstd window accepted, bytes: 128 MiB, the zstd command's own limit. */
const ZSTD_WINDOW_LOG_MAX = 27;
const GZIP_TRAILER_BYTES = 8;
/** zstd frames of one extent: each costs a trip to the thread pool, and may be empty. */
export const MAX_EXTENT_FRAMES = 2048;

// The end of the stream doesn't matter, only that there is enough.
const GZIP_OPTIONS = { finishFlush: constants.Z_SYNC_FLUSH };
const ZSTD_OPTIONS = {
  finishFlush: constants.ZSTD_e_continue,
  params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
};

/** Where in its first byte a `deflate` extent starts, and the output before it, up to 32 KiB. */
export interface SpanStart {
  readonly bits: number;
  readonly window?: Uint8Array | undefined;
}

/**
 * The first `decodedLength` bytes (> 0) of a decoded extent; nothing past them is produced, so an extent that expands
 * without end costs no more than an honest one. gzip: one member (RFC 1952), whose checksum is not looked at because
 * the caller verifies a digest. zstd: frames with a window of at most 128 MiB. lz4_block: a bare block, which must decode
 * to exactly `decodedLength` bytes. deflate: from the checkpoint `start` on, into the gzip members that follow when there
 * are some. Throws CHUNK_CORRUPT when the data is damaged or ends early, and the signal's reason when aborted. `none`
 * returns a view of `bytes`.
 */
export async function decodeExtent(
  codec: Codec,
  bytes: Uint8Array,
  decodedLength: number,
  { signal, start }: { signal: AbortSignal; start?: SpanStart | undefined },
): Promise<Uint8Array> {
  signal.throwIfAborted();
  if (codec === 'stream') throw new ShoalError('CHUNK_CORRUPT', 'compressed data cannot be decoded by range');
  if (codec === 'deflate') return decodeSpan(bytes, decodedLength, start ?? { bits: 0 }, signal);
  if (codec === 'none') {
    if (bytes.byteLength < decodedLength) throw endsEarly(bytes.byteLength, decodedLength);
    return bytes.subarray(0, decodedLength);
  }
  if (codec === 'lz4_block') return await decodeLz4(bytes, decodedLength);
  const coded = codec === 'gzip' ? gzipPayload(bytes) : bytes;
  if (decodedLength <= INLINE_DECODED_BYTES && coded.byteLength <= INLINE_CODED_BYTES) {
    const decoded = decodeInline(codec, coded, decodedLength);
    if (decoded !== undefined) return decoded;
  }
  if (codec === 'gzip') return await decodeGzip(coded, decodedLength, { wrapper: 'raw' }, signal);
  return await decodeZstd(coded, decodedLength, signal);
}

/** On the thread pool; the library takes the size in front of the block, and writes nothing past it. */
async function decodeLz4(bytes: Uint8Array, decodedLength: number): Promise<Uint8Array> {
  const sized = Buffer.allocUnsafe(4 + bytes.byteLength);
  sized.writeUInt32LE(decodedLength, 0);
  sized.set(bytes, 4);
  let decoded: Uint8Array;
  try {
    decoded = await uncompress(sized);
  } catch (cause) {
    throw damaged(cause);
  }
  if (decoded.byteLength < decodedLength) throw endsEarly(decoded.byteLength, decodedLength);
  return decoded;
}

/** The deflate stream of a gzip member: raw inflate is 15 % faster than gunzip, which also computes a CRC-32. */
function gzipPayload(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength < 18 || bytes[0] !== 0x1f || bytes[1] !== 0x8b || bytes[2] !== 8) {
    throw new ShoalError('CHUNK_CORRUPT', 'compressed data is not a gzip member');
  }
  const flags = bytes[3] as number;
  let at = 10;
  if ((flags & 0x04) !== 0) at += 2 + (bytes[at] as number) + 256 * (bytes[at + 1] as number);
  for (const field of [0x08, 0x10]) {
    if ((flags & field) === 0) continue;
    const end = bytes.indexOf(0, at);
    at = end < 0 ? bytes.byteLength : end + 1;
  }
  if ((flags & 0x02) !== 0) at += 2;
  if (at >= bytes.byteLength) throw new ShoalError('CHUNK_CORRUPT', 'compressed data ends in its gzip header');
  return bytes.subarray(at);
}

/** Undefined when the extent holds more than a little after the wanted bytes: then a stream must stop it. */
function decodeInline(codec: 'gzip' | 'zstd', coded: Uint8Array, decodedLength: number): Uint8Array | undefined {
  const maxOutputLength = decodedLength + INLINE_SLACK_BYTES;
  const options = { chunkSize: maxOutputLength, maxOutputLength };
  let decoded: Buffer;
  try {
    if (codec === 'gzip') decoded = inflateRawSync(coded, { ...options, ...GZIP_OPTIONS });
    else decoded = zstdDecompressSync(coded, { ...options, ...ZSTD_OPTIONS });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') return undefined;
    throw damaged(cause);
  }
  if (decoded.byteLength >= decodedLength) return decoded.subarray(0, decodedLength);
  // Node stops behind the first zstd frame, a stream goes on to the next.
  if (codec === 'zstd') return undefined;
  throw endsEarly(decoded.byteLength, decodedLength);
}

/** One member, or a span of a stream and the members that start in it, into a buffer of the pool. */
async function decodeGzip(
  coded: Uint8Array,
  decodedLength: number,
  start: InflateStart,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return await intoPool(decodedLength, signal, async (output) => {
    let { taken, made, ended, damaged: isDamaged } = await inflateOnThread(coded, output, start);
    // A raw stream's member ends with its CRC-32 and length, which the chunk digests make superfluous.
    taken += GZIP_TRAILER_BYTES;
    const spansMembers = start.bits !== undefined;
    while (spansMembers && ended && !isDamaged && made < decodedLength && taken < coded.byteLength) {
      signal.throwIfAborted();
      const next = await inflateOnThread(coded.subarray(taken), output.subarray(made), { wrapper: 'gzip' });
      ({ ended, damaged: isDamaged } = next);
      if (next.taken === 0) break;
      taken += next.taken;
      made += next.made;
    }
    if (made >= decodedLength) return;
    throw isDamaged ? damaged() : endsEarly(made, decodedLength);
  });
}

function decodeSpan(
  coded: Uint8Array,
  decodedLength: number,
  { bits, window }: SpanStart,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (coded.byteLength === 0) throw endsEarly(0, decodedLength);
  return decodeGzip(coded, decodedLength, { wrapper: 'raw', bits, window }, signal);
}

async function decodeZstd(coded: Uint8Array, decodedLength: number, signal: AbortSignal): Promise<Uint8Array> {
  return await intoPool(decodedLength, signal, async (output) => {
    const made = await zstdOnThread(coded, output, MAX_EXTENT_FRAMES);
    if (made === undefined) throw damaged();
    if (made < decodedLength) throw endsEarly(made, decodedLength);
  });
}

/** The buffer that `fill` fills; it goes back when that fails. */
async function intoPool(
  length: number,
  signal: AbortSignal,
  fill: (output: Uint8Array) => Promise<void>,
): Promise<Uint8Array> {
  const output = takeBytes(length);
  try {
    await fill(output);
    // A decoder on the thread pool cannot be stopped: its output is not used until it is done.
    signal.throwIfAborted();
  } catch (error) {
    freeBytes(output);
    throw error;
  }
  return output;
}

function endsEarly(have: number, wanted: number): ShoalError {
  return new ShoalError('CHUNK_CORRUPT', `compressed data ends after ${have} of ${wanted} bytes`);
}

function damaged(cause?: unknown): ShoalError {
  return new ShoalError('CHUNK_CORRUPT', 'compressed data is damaged', { cause });
}
