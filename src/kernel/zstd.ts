import koffi from 'koffi';
import { ShoalError } from '../errors.ts';
import type { ThreadCallable } from './thread-call.ts';
import type { Place } from './zlib.ts';

/** What one call of `ZstdDecoder.run` came to. */
export interface ZstdStep {
  readonly taken: number;
  readonly made: number;
  /** A frame is over, and all of it was made. */
  readonly ended: boolean;
}

/** zstd's streaming decoder, which tells where frames end. */
export interface ZstdDecoder {
  /** Decodes until input or output is used up or a frame ends; both must be memory of their own. Throws INVALID_LAYER. */
  run(input: Place, output: Place): ZstdStep;
  close(): void;
}

/** ZSTD_inBuffer and ZSTD_outBuffer: pointer, size, position; 64-bit each. */
const BUFFER_BYTES = 24;
const POSITION_AT = 16;
const SIZE_AT = 8;

/** zstd's own functions; a decoder of streams and one of whole frames are the same thing to it (`ZSTD_DCtx`). */
export interface Zstd {
  create(): unknown;
  free(decoder: unknown): number;
  /** Forgets the frame under way. */
  reset(decoder: unknown, directive: number): unknown;
  readonly decode: ((decoder: unknown, output: Uint8Array, input: Uint8Array) => number | bigint) & ThreadCallable;
  /** Decoder, output and its length, input and its length. */
  readonly decodeWhole: ThreadCallable;
  isError(code: number | bigint): number;
}

interface Encoder {
  create(): unknown;
  free(encoder: unknown): number;
  /** The most that so many bytes can become. */
  bound(length: number): number | bigint;
  encode(
    encoder: unknown,
    output: Uint8Array,
    room: number,
    input: Uint8Array,
    length: number,
    level: number,
  ): number | bigint;
}

let zstd: Zstd | undefined;
let encoding: Encoder | undefined;

/**
 * A decoder over the zstd inside the running Node.js, as `createInflater` is over its zlib. Windows beyond zstd's own
 * default of 128 MiB are refused. Throws UNAVAILABLE where Node does not export it.
 */
export function createZstdDecoder(): ZstdDecoder {
  const lib = loadZstd();
  const decoder = lib.create();
  if (decoder === null) throw new ShoalError('UNAVAILABLE', 'zstd does not start');
  const [input, output] = [emptyBuffer(), emptyBuffer()];
  let closed = false;
  return {
    run(from, to) {
      input.set(from);
      output.set(to);
      const result = lib.decode(decoder, output.bytes, input.bytes);
      if (lib.isError(result) !== 0)
        throw new ShoalError('INVALID_LAYER', 'the zstd stream is damaged, or not supported');
      return {
        taken: input.position(),
        made: output.position(),
        ended: Number(result) === 0,
      };
    },
    close() {
      if (!closed) lib.free(decoder);
      closed = true;
    },
  };
}

/** Packs one piece of memory after the other into frames of their own, with what it needs for that kept between them. */
export interface ZstdEncoder {
  /** The frame, which is memory of its own and as long as it has to be. */
  encode(bytes: Uint8Array): Uint8Array;
  close(): void;
}

/** An encoder for pieces of at most `maxBytes`. Throws UNAVAILABLE. */
export function createZstdEncoder(init: { maxBytes: number; level: number }): ZstdEncoder {
  const lib = loadEncoder();
  const { isError } = loadZstd();
  const encoder = lib.create();
  if (encoder === null) throw new ShoalError('UNAVAILABLE', 'zstd does not start');
  const room = new Uint8Array(Number(lib.bound(init.maxBytes)));
  let closed = false;
  return {
    encode(bytes) {
      const length = lib.encode(encoder, room, room.byteLength, bytes, bytes.byteLength, init.level);
      if (isError(length) !== 0) throw new ShoalError('UNAVAILABLE', `zstd does not pack (${length})`);
      return room.slice(0, Number(length));
    },
    close() {
      if (!closed) lib.free(encoder);
      closed = true;
    },
  };
}

/** A ZSTD_inBuffer or ZSTD_outBuffer, which does not keep alive what it points to. */
export interface StreamBuffer {
  readonly bytes: Uint8Array;
  set(place: Place): void;
  /** Bytes used. */
  position(): number;
}

/** One that stands at the start of `bytes`. */
export function streamBuffer(bytes: Uint8Array): StreamBuffer {
  const buffer = emptyBuffer();
  buffer.set({ bytes, start: 0, end: bytes.byteLength });
  return buffer;
}

function emptyBuffer(): StreamBuffer {
  const words = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  return {
    bytes: words,
    set({ bytes, start, end }) {
      const base: bigint = koffi.address(new Uint8Array(bytes.buffer));
      words.writeBigUInt64LE(base + BigInt(bytes.byteOffset + start), 0);
      words.writeBigUInt64LE(BigInt(end - start), SIZE_AT);
      words.writeBigUInt64LE(0n, POSITION_AT);
    },
    position: () => Number(words.readBigUInt64LE(POSITION_AT)),
  };
}

/** Throws UNAVAILABLE. */
export function loadZstd(): Zstd {
  zstd ??= exported((node) => ({
    create: node.func('ZSTD_createDCtx', 'void *', []),
    free: node.func('ZSTD_freeDCtx', 'size_t', ['void *']),
    reset: node.func('ZSTD_DCtx_reset', 'size_t', ['void *', 'int']),
    decode: node.func('ZSTD_decompressStream', 'size_t', ['void *', 'void *', 'void *']),
    decodeWhole: node.func('ZSTD_decompressDCtx', 'size_t', ['void *', 'void *', 'size_t', 'void *', 'size_t']),
    isError: node.func('ZSTD_isError', 'uint', ['size_t']),
  }));
  return zstd;
}

function loadEncoder(): Encoder {
  encoding ??= exported((node) => ({
    create: node.func('ZSTD_createCCtx', 'void *', []),
    free: node.func('ZSTD_freeCCtx', 'size_t', ['void *']),
    bound: node.func('ZSTD_compressBound', 'size_t', ['size_t']),
    encode: node.func('ZSTD_compressCCtx', 'size_t', ['void *', 'void *', 'size_t', 'void *', 'size_t', 'int']),
  }));
  return encoding;
}

/** Functions of the running Node.js. */
function exported<T>(functions: (node: ReturnType<typeof koffi.load>) => T): T {
  try {
    return functions(koffi.load(null));
  } catch (cause) {
    throw new ShoalError('UNAVAILABLE', 'this Node.js does not export zstd', { cause });
  }
}
