import { ShoalError } from '../errors.ts';
import { callOnThread } from './thread-call.ts';
import { loadZstd, type StreamBuffer, streamBuffer, type Zstd } from './zstd.ts';

/** Decoders kept for the next call, about 100 KiB each. */
const MAX_KEPT_CONTEXTS = 8;
const kept: unknown[] = [];
/** ZSTD_reset_session_only. */
const RESET_SESSION = 1;

/**
 * Decodes zstd frames from `input` into `output`, on the thread pool, until that is full, the input used up or `maxFrames`
 * frames were seen; the bytes made, or undefined when the data is damaged. Frames whose window is larger than 128 MiB,
 * zstd's own limit, and than the output, are refused. Neither may change until this settles. Throws UNAVAILABLE where
 * Node does not export its zstd.
 */
export async function zstdOnThread(
  input: Uint8Array,
  output: Uint8Array,
  maxFrames: number,
): Promise<number | undefined> {
  const lib = loadZstd();
  const context = kept.pop() ?? lib.create();
  if (context === null) throw new ShoalError('UNAVAILABLE', 'zstd does not start');
  try {
    const sizes = [output, output.byteLength, input, input.byteLength];
    const whole = await callOnThread<number | bigint>(lib.decodeWhole, context, ...sizes);
    if (lib.isError(whole) === 0) return Number(whole);
    // More than fits, perhaps: without an end to run to, a window must be kept, and each frame takes a call.
    return await decodeStream(lib, context, { input, output, maxFrames });
  } finally {
    lib.reset(context, RESET_SESSION);
    if (kept.length < MAX_KEPT_CONTEXTS) kept.push(context);
    else lib.free(context);
  }
}

async function decodeStream(
  lib: Zstd,
  context: unknown,
  { input, output, maxFrames }: { input: Uint8Array; output: Uint8Array; maxFrames: number },
): Promise<number | undefined> {
  lib.reset(context, RESET_SESSION);
  const [from, to] = [input, output].map(streamBuffer) as [StreamBuffer, StreamBuffer];
  for (let frames = 0; frames < maxFrames; ) {
    const before = from.position() + to.position();
    const result = await callOnThread<number | bigint>(lib.decode, context, to.bytes, from.bytes);
    if (lib.isError(result) !== 0) return undefined;
    if (Number(result) === 0) frames += 1;
    const isStuck = from.position() + to.position() === before;
    if (isStuck || to.position() === output.byteLength || from.position() === input.byteLength) break;
  }
  return to.position();
}
