import { constants, createInflateRaw, createZstdDecompress, inflateRawSync, zstdDecompressSync } from 'node:zlib';
import { uncompress } from 'lz4-napi';
import type { Codec } from '../core/chunk-table.ts';
import { ShoalError } from '../errors.ts';

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
/** zlib's smallest `chunkSize`. */
const MIN_OUTPUT_BYTES = 64;

// The end of the stream doesn't matter, only that there is enough.
const GZIP_OPTIONS = { finishFlush: constants.Z_SYNC_FLUSH };
const ZSTD_OPTIONS = {
  finishFlush: constants.ZSTD_e_continue,
  params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG_MAX },
};

/**
 * The first `decodedLength` bytes (> 0) of a decoded extent; nothing past them is produced, so an extent that expands
 * without end costs no more than an honest one. gzip: one member (RFC 1952), whose checksum is not looked at because
 * the caller verifies a digest. zstd: frames with a window of at most 128 MiB.
 * lz4_block: a bare block, which must decode to exactly `decodedLength` bytes. Throws CHUNK_CORRUPT when the data is
 * damaged or ends early, and the signal's reason when aborted. `none` returns a view of `bytes`.
 */
export async function decodeExtent(
  codec: Codec,
  bytes: Uint8Array,
  decodedLength: number,
  { signal }: { signal: AbortSignal },
): Promise<Uint8Array> {
  signal.throwIfAborted();
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
  return decodeStream(codec, coded, decodedLength, signal);
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
  if (decoded.byteLength < decodedLength) throw endsEarly(decoded.byteLength, decodedLength);
  return decoded.subarray(0, decodedLength);
}

/** Decodes on zlib's thread pool into one buffer of exactly the wanted size, and stops there. */
function decodeStream(
  codec: 'gzip' | 'zstd',
  coded: Uint8Array,
  decodedLength: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunkSize = Math.max(MIN_OUTPUT_BYTES, decodedLength);
    const stream =
      codec === 'gzip'
        ? createInflateRaw({ chunkSize, ...GZIP_OPTIONS })
        : createZstdDecompress({ chunkSize, ...ZSTD_OPTIONS });
    const parts: Uint8Array[] = [];
    let have = 0;
    const settle = (finish: () => void): void => {
      signal.removeEventListener('abort', onAbort);
      stream.destroy();
      finish();
    };
    const onAbort = (): void => settle(() => reject(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    // Destroying from inside `data` ends the decoder before it asks for another output buffer.
    stream.on('data', (part: Buffer) => {
      parts.push(part);
      have += part.byteLength;
      if (have >= decodedLength) settle(() => resolve(joined(parts, decodedLength)));
    });
    stream.on('error', (cause) => settle(() => reject(damaged(cause))));
    stream.on('end', () => settle(() => reject(endsEarly(have, decodedLength))));
    stream.end(coded);
  });
}

function joined(parts: readonly Uint8Array[], decodedLength: number): Uint8Array {
  const first = parts[0] as Uint8Array;
  return (parts.length === 1 ? first : Buffer.concat(parts)).subarray(0, decodedLength);
}

function endsEarly(have: number, wanted: number): ShoalError {
  return new ShoalError('CHUNK_CORRUPT', `compressed data ends after ${have} of ${wanted} bytes`);
}

function damaged(cause: unknown): ShoalError {
  return new ShoalError('CHUNK_CORRUPT', 'compressed data is damaged', { cause });
}
