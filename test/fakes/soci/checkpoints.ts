import { createInflater } from '../../../src/kernel/zlib.ts';

/** Where decoding a gzip layer can start, as zlib tells. */
export interface Checkpoint {
  /** Input taken by then, bytes. */
  readonly at: number;
  readonly out: number;
  readonly bits: number;
  readonly window: Buffer;
}

const WINDOW_BYTES = 32 * 1024;
const STEP_BYTES = 16 * 1024;

/**
 * Checkpoints of a gzip stream as SOCI places them: the first block, then each one more than `spanBytes` of output later.
 * The output is handed over as it comes.
 */
export function checkpointsOf(
  gzip: Uint8Array,
  spanBytes: number,
  onOutput: (bytes: Uint8Array) => void,
): readonly Checkpoint[] {
  const input = Buffer.allocUnsafeSlow(gzip.byteLength);
  input.set(gzip);
  const step = Buffer.allocUnsafeSlow(STEP_BYTES);
  const inflater = createInflater();
  const points: Checkpoint[] = [];
  let history = Buffer.alloc(WINDOW_BYTES);
  let at = 0;
  let out = 0;
  let last = 0;
  for (let ended = false; at < input.byteLength; ) {
    if (ended) inflater.reset();
    const done = inflater.run(
      { bytes: input, start: at, end: input.byteLength },
      { bytes: step, start: 0, end: STEP_BYTES },
      { stopAtBlock: true },
    );
    ended = done.ended;
    at += done.taken;
    out += done.made;
    if (done.made > 0) {
      onOutput(step.subarray(0, done.made));
      history = Buffer.concat([history, step.subarray(0, done.made)]).subarray(-WINDOW_BYTES);
    }
    if (!done.atBlock || !(out === 0 || out - last > spanBytes)) continue;
    points.push({ at, out, bits: done.bits, window: Buffer.from(history) });
    last = out;
  }
  inflater.close();
  return points;
}
