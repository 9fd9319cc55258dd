import { ShoalError } from '../../errors.ts';
import { createZstdDecoder, type ZstdDecoder } from '../../kernel/zstd.ts';
import { MAX_EXTENT_FRAMES } from '../codec.ts';
import { type PassScanner, Progress, type ScanPoint } from './scanner.ts';

/** Output between two places to start from, bytes, where frames are shorter. */
const SPAN_BYTES = 1024 * 1024;
const OUTPUT_BYTES = 128 * 1024;

/**
 * Decodes zstd frames (RFC 8878) and notes where frames begin: the only places decoding can start. A layer that is one
 * frame, as most are, has one. Throws INVALID_LAYER.
 */
export function createZstdScanner(components: { onOutput: (bytes: Uint8Array) => void }): PassScanner {
  return new ZstdScanner(components.onOutput);
}

class ZstdScanner implements PassScanner {
  readonly points: ScanPoint[] = [];
  readonly #onOutput: (bytes: Uint8Array) => void;
  readonly #decoder: ZstdDecoder = createZstdDecoder();
  readonly #out = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  readonly #progress = new Progress();
  #inOffset = 0;
  #outOffset = 0;
  #between = true;
  /** Since the last point. */
  #frames = 0;

  constructor(onOutput: (bytes: Uint8Array) => void) {
    this.#onOutput = onOutput;
  }

  write(bytes: Uint8Array): void {
    let at = 0;
    // With the output full there may be more of it without more input.
    for (let full = false; at < bytes.byteLength || full; ) {
      if (this.#between) this.#note();
      const step = this.#decoder.run(
        { bytes, start: at, end: bytes.byteLength },
        { bytes: this.#out, start: 0, end: OUTPUT_BYTES },
      );
      at += step.taken;
      full = step.made === OUTPUT_BYTES && !step.ended;
      this.#inOffset += step.taken;
      this.#outOffset += step.made;
      this.#between = step.ended;
      if (step.made === 0) continue;
      this.#progress.note(this.#outOffset, this.#inOffset);
      this.#onOutput(this.#out.subarray(0, step.made));
    }
  }

  end(): void {
    this.close();
    if (!this.#between) throw new ShoalError('INVALID_LAYER', 'the zstd stream is cut short');
  }

  inputFor(outOffset: number): number {
    return this.#progress.inputFor(outOffset);
  }

  close(): void {
    this.#decoder.close();
  }

  #note(): void {
    this.#between = false;
    const last = this.points.at(-1);
    this.#frames += 1;
    const isNear = last !== undefined && this.#outOffset - last.outOffset < SPAN_BYTES;
    if (isNear && this.#frames < MAX_EXTENT_FRAMES / 2) return;
    this.#frames = 0;
    this.points.push({ inOffset: this.#inOffset, outOffset: this.#outOffset, bits: 0, window: undefined });
  }
}
