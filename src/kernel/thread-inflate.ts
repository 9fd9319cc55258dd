import { callOnThread } from './thread-call.ts';
import { type OpenStream, openStream, STREAM, WINDOW_BITS_GZIP, WINDOW_BITS_RAW, Z } from './zlib.ts';

/** How a piece of compressed data starts. */
export interface InflateStart {
  /** `raw`: a deflate stream; `gzip`: members, one after the other. */
  readonly wrapper: 'raw' | 'gzip';
  /** Raw only: high bits of the first byte of the input to start with; 0: all of it. */
  readonly bits?: number;
  /** Raw only: the output before, up to 32 KiB. */
  readonly window?: Uint8Array | undefined;
}

/** What became of one stream or member. */
export interface Inflated {
  readonly taken: number;
  readonly made: number;
  /** The stream is over; else the output is full, or the input ends early. */
  readonly ended: boolean;
  /** zlib found the data damaged, after `made` bytes. */
  readonly damaged: boolean;
}

/** Streams kept for the next call, about 45 KiB each: one per thread of the pool. */
const MAX_KEPT_STREAMS = 8;
const kept: OpenStream[] = [];

/**
 * Inflates one stream or gzip member from `input` until it ends or `output` is full, on the thread pool, into memory of
 * the caller's: unlike Node's streams, which allocate each output anew and copy what they hand out in parts. Neither
 * may change, and the call goes on, until it settles. Throws UNAVAILABLE where Node does not export its zlib.
 */
export async function inflateOnThread(input: Uint8Array, output: Uint8Array, start: InflateStart): Promise<Inflated> {
  const open = kept.pop() ?? openStream(WINDOW_BITS_RAW);
  const { lib, stream, view, addressOf } = open;
  const { wrapper, bits = 0, window } = start;
  lib.resetTo(stream, wrapper === 'raw' ? WINDOW_BITS_RAW : WINDOW_BITS_GZIP);
  const skipped = bits > 0 ? 1 : 0;
  if (bits > 0) lib.prime(stream, bits, (input[0] as number) >> (8 - bits));
  if (window !== undefined && window.byteLength > 0) lib.setDictionary(stream, window, window.byteLength);
  view.setBigUint64(STREAM.nextIn, addressOf(input) + BigInt(skipped), true);
  view.setUint32(STREAM.availIn, input.byteLength - skipped, true);
  view.setBigUint64(STREAM.nextOut, addressOf(output), true);
  view.setUint32(STREAM.availOut, output.byteLength, true);
  try {
    const result = await callOnThread<number>(lib.inflate, stream, Z.NO_FLUSH);
    return {
      taken: input.byteLength - view.getUint32(STREAM.availIn, true),
      made: output.byteLength - view.getUint32(STREAM.availOut, true),
      ended: result === Z.STREAM_END,
      damaged: result !== Z.OK && result !== Z.STREAM_END && result !== Z.BUF_ERROR,
    };
  } finally {
    if (kept.length < MAX_KEPT_STREAMS) kept.push(open);
    else lib.end(stream);
  }
}
