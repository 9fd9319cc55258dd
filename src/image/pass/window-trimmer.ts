import { zstdCompressSync } from 'node:zlib';
import { createRawProbe, type RawProbe } from '../../kernel/zlib.ts';
import { createZstdEncoder, type ZstdEncoder } from '../../kernel/zstd.ts';
import type { ScanPoint } from './scanner.ts';

/** How far back deflate refers, bytes (RFC 1951). */
export const WINDOW_BYTES = 32 * 1024;
/** Input that makes the first 32 KiB of output whatever it holds: stored blocks are the worst, a little over 1 to 1. */
const CAPTURE_BYTES = WINDOW_BYTES + 4 * 1024;
/** zstd's own default. */
const LEVEL = 3;

/**
 * Keeps of a window what is referred to. Only the first 32 KiB of output after a checkpoint can refer to the window, so
 * they are decoded twice more after windows that hold their own positions: one has a position's low byte, the other the
 * same plus one plus the position's high bits. Where the two outputs are the same, the byte did not come from the window;
 * where they differ, they say from where. The bytes nobody refers to become zeros and cost nothing: on Debian layers a
 * window then packs to 2.3 KB instead of some 15.
 */
export class WindowTrimmer {
  readonly #probe: RawProbe = createRawProbe();
  readonly #encoder: ZstdEncoder = createZstdEncoder({ maxBytes: WINDOW_BYTES, level: LEVEL });
  readonly #captured = Buffer.allocUnsafeSlow(CAPTURE_BYTES);
  readonly #low = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  readonly #shifted = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  readonly #lowWords = new Int32Array(this.#low.buffer);
  readonly #shiftedWords = new Int32Array(this.#shifted.buffer);
  readonly #window = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  readonly #trimmed = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #filled = 0;
  #pending: ScanPoint | undefined;
  #isKept = false;
  #closed = false;

  /**
   * A place that may become a checkpoint, with the output before it, at most 32 KiB; input from its first byte on follows
   * through `feed`. The one before is forgotten, unless it was kept.
   */
  begin(point: ScanPoint, before: Uint8Array): void {
    this.finish();
    this.#pending = point;
    this.#isKept = false;
    this.#window.fill(0, 0, WINDOW_BYTES - before.byteLength);
    this.#window.set(before, WINDOW_BYTES - before.byteLength);
    this.#filled = 0;
  }

  /** The place begun last, if it needs a window, becomes a checkpoint. */
  keep(point: ScanPoint): void {
    if (this.#pending !== point) return;
    this.#isKept = true;
    if (this.#filled === CAPTURE_BYTES) this.finish();
  }

  /** Input of the stream, as it passes. */
  feed(bytes: Uint8Array): void {
    if (this.#pending === undefined) return;
    const part = bytes.subarray(0, CAPTURE_BYTES - this.#filled);
    this.#captured.set(part, this.#filled);
    this.#filled += part.byteLength;
    if (this.#filled === CAPTURE_BYTES && this.#isKept) this.finish();
  }

  /** Settles the checkpoint under way with the input there is; what was not kept is forgotten. */
  finish(): void {
    const point = this.#pending;
    if (point === undefined) return;
    this.#pending = undefined;
    if (!this.#isKept) return;
    this.#trim(point.bits);
    point.window = this.#encoder.encode(this.#trimmed);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#probe.close();
    this.#encoder.close();
  }

  #trim(bits: number): void {
    const input = this.#captured.subarray(0, this.#filled);
    const low = this.#low;
    const shifted = this.#shifted;
    const count = this.#probe.decode(input, bits, PROBE.low, low);
    this.#probe.decode(input, bits, PROBE.shifted, shifted);
    const window = this.#window;
    const trimmed = this.#trimmed.fill(0);
    const [lowWords, shiftedWords] = [this.#lowWords, this.#shiftedWords];
    for (let index = 0; index < count; index += 1) {
      // Most are the same, and are passed over four at a time.
      if ((index & 3) === 0 && lowWords[index >> 2] === shiftedWords[index >> 2]) {
        index += 3;
        continue;
      }
      const byte = low[index] as number;
      const shift = ((shifted[index] as number) - byte) & 0xff;
      if (shift === 0) continue;
      const at = byte + 256 * (shift - 1);
      trimmed[at] = window[at] as number;
    }
  }
}

const PROBE = {
  low: probeOf((at) => at),
  shifted: probeOf((at) => at + 1 + (at >> 8)),
} as const;

function probeOf(valueAt: (at: number) => number): Uint8Array {
  const probe = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  for (let at = 0; at < WINDOW_BYTES; at += 1) probe[at] = valueAt(at) & 0xff;
  return probe;
}

/** A window as it is stored. */
export function packWindow(window: Uint8Array): Uint8Array {
  return zstdCompressSync(window);
}
