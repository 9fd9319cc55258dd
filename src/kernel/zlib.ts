import koffi from 'koffi';
import { ShoalError } from '../errors.ts';
import type { ThreadCallable } from './thread-call.ts';

/** What one call of `Inflater.run` came to. */
export interface InflateStep {
  /** Bytes of input taken and of output made by this call. */
  readonly taken: number;
  readonly made: number;
  /** The stream stands between two blocks (or after its header), and not after the last one. */
  readonly atBlock: boolean;
  /** High bits of the last byte taken that belong to what comes next; meaningful between blocks. */
  readonly bits: number;
  /** The gzip member is over, checksum and length included. */
  readonly ended: boolean;
}

/** zlib's inflate for gzip members, with what Node's streams hide: where deflate blocks begin, to the bit. */
export interface Inflater {
  /**
   * Decodes from `input` into `output` until one of them is used up, the member ends, or, with `stopAtBlock`, a block
   * does. Both must be memory of their own (not from Buffer's pool). Throws INVALID_LAYER for damaged data.
   */
  run(input: Place, output: Place, options: { stopAtBlock: boolean }): InflateStep;
  /** Starts over with the next member. */
  reset(): void;
  /** Frees what zlib holds. */
  close(): void;
}

/** Bytes [start, end) of a buffer. */
export interface Place {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** struct z_stream of a 64-bit machine: next_in, avail_in, total_in, next_out, avail_out, …, data_type. */
export const STREAM = { bytes: 112, nextIn: 0, availIn: 8, nextOut: 24, availOut: 32, dataType: 88 } as const;
/** 32 KiB window, gzip wrapper. */
export const WINDOW_BITS_GZIP = 15 + 16;
export const WINDOW_BITS_RAW = -15;
export const Z = { NO_FLUSH: 0, BLOCK: 5, OK: 0, STREAM_END: 1, BUF_ERROR: -5 } as const;
const DATA_TYPE = { bits: 7, lastBlock: 64, atBlock: 128 } as const;

/** Decodes from the middle of a deflate stream into a buffer of bounded length. */
export interface RawProbe {
  /**
   * Decodes `input`, which starts with the `bits` high bits of its first byte (0: with all of it), after `window`; the
   * number of bytes that `output` got until it was full, the input used up, or the stream over.
   */
  decode(input: Uint8Array, bits: number, window: Uint8Array, output: Uint8Array): number;
  close(): void;
}

/** zlib's own functions. */
export interface Zlib {
  version(): string;
  init(stream: Uint8Array, windowBits: number, version: string, size: number): number;
  readonly inflate: ((stream: Uint8Array, flush: number) => number) & ThreadCallable;
  reset(stream: Uint8Array): number;
  resetTo(stream: Uint8Array, windowBits: number): number;
  end(stream: Uint8Array): number;
  prime(stream: Uint8Array, bits: number, value: number): number;
  setDictionary(stream: Uint8Array, window: Uint8Array, length: number): number;
}

let zlib: Zlib | undefined;

/**
 * An inflater over the zlib inside the running Node.js, which exports its C interface for addons; that is three times as
 * fast as inflate in JavaScript. Throws UNAVAILABLE where Node does not export it.
 */
export function createInflater(): Inflater {
  const { lib, stream, view, addressOf } = openStream(WINDOW_BITS_GZIP);
  return {
    run(input, output, { stopAtBlock }) {
      const room = { in: input.end - input.start, out: output.end - output.start };
      view.setBigUint64(STREAM.nextIn, addressOf(input.bytes) + BigInt(input.start), true);
      view.setUint32(STREAM.availIn, room.in, true);
      view.setBigUint64(STREAM.nextOut, addressOf(output.bytes) + BigInt(output.start), true);
      view.setUint32(STREAM.availOut, room.out, true);
      const result = lib.inflate(stream, stopAtBlock ? Z.BLOCK : Z.NO_FLUSH);
      if (result !== Z.OK && result !== Z.STREAM_END && result !== Z.BUF_ERROR) {
        throw new ShoalError('INVALID_LAYER', `the gzip stream is damaged (zlib error ${result})`);
      }
      const type = view.getUint32(STREAM.dataType, true);
      return {
        taken: room.in - view.getUint32(STREAM.availIn, true),
        made: room.out - view.getUint32(STREAM.availOut, true),
        atBlock: (type & DATA_TYPE.atBlock) !== 0 && (type & DATA_TYPE.lastBlock) === 0,
        bits: type & DATA_TYPE.bits,
        ended: result === Z.STREAM_END,
      };
    },
    reset: () => void lib.reset(stream),
    close: () => void lib.end(stream),
  };
}

/** A probe over the same zlib; all buffers given to it must be memory of their own. Throws UNAVAILABLE. */
export function createRawProbe(): RawProbe {
  const { lib, stream, view, addressOf } = openStream(WINDOW_BITS_RAW);
  return {
    decode(input, bits, window, output) {
      lib.reset(stream);
      if (bits > 0) lib.prime(stream, bits, (input[0] as number) >> (8 - bits));
      lib.setDictionary(stream, window, window.byteLength);
      const start = bits > 0 ? 1 : 0;
      view.setBigUint64(STREAM.nextIn, addressOf(input) + BigInt(start), true);
      view.setUint32(STREAM.availIn, input.byteLength - start, true);
      view.setBigUint64(STREAM.nextOut, addressOf(output), true);
      view.setUint32(STREAM.availOut, output.byteLength, true);
      lib.inflate(stream, Z.NO_FLUSH);
      return output.byteLength - view.getUint32(STREAM.availOut, true);
    },
    close: () => void lib.end(stream),
  };
}

/** A stream of zlib's, to be ended by who opened it. */
export interface OpenStream {
  readonly lib: Zlib;
  readonly stream: Uint8Array;
  readonly view: DataView;
  addressOf(bytes: Uint8Array): bigint;
}

/** Throws UNAVAILABLE. */
export function openStream(windowBits: number): OpenStream {
  const lib = loadZlib();
  const stream = Buffer.allocUnsafeSlow(STREAM.bytes).fill(0);
  const view = new DataView(stream.buffer, stream.byteOffset, STREAM.bytes);
  const status = lib.init(stream, windowBits, lib.version(), STREAM.bytes);
  if (status !== Z.OK) throw new ShoalError('UNAVAILABLE', `zlib does not start (${status})`);
  const addresses = new WeakMap<ArrayBufferLike, bigint>();
  return {
    lib,
    stream,
    view,
    addressOf(bytes) {
      let base = addresses.get(bytes.buffer);
      if (base === undefined) {
        base = koffi.address(new Uint8Array(bytes.buffer));
        addresses.set(bytes.buffer, base);
      }
      return base + BigInt(bytes.byteOffset);
    },
  };
}

function loadZlib(): Zlib {
  if (zlib !== undefined) return zlib;
  try {
    const node = koffi.load(null);
    zlib = {
      version: node.func('zlibVersion', 'str', []),
      init: node.func('inflateInit2_', 'int', ['void *', 'int', 'str', 'int']),
      inflate: node.func('inflate', 'int', ['void *', 'int']),
      reset: node.func('inflateReset', 'int', ['void *']),
      resetTo: node.func('inflateReset2', 'int', ['void *', 'int']),
      end: node.func('inflateEnd', 'int', ['void *']),
      prime: node.func('inflatePrime', 'int', ['void *', 'int', 'int']),
      setDictionary: node.func('inflateSetDictionary', 'int', ['void *', 'void *', 'uint']),
    };
    return zlib;
  } catch (cause) {
    throw new ShoalError('UNAVAILABLE', 'this Node.js does not export zlib', { cause });
  }
}
