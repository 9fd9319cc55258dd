import { zstdCompressSync } from 'node:zlib';
import { createRawProbe, type RawProbe } from '../../kernel/zlib.ts';
import type { ScanPoint } from './scanner.ts';

/** How far back deflate refers, bytes (RFC 1951). */
export const WINDOW_BYTES = 32 * 1024;
/** Input that makes the first 32 KiB of output whatever it holds: stored blocks are the worst, a little over 1 to 1. */
const CAPTURE_BYTES = WINDOW_BYTES + 4 * 1024;

/**
 * Keeps of a window what is referred to. Only the first 32 KiB of output after a checkpoint can refer to the window, so
 * they are decoded again after windows that hold their own positions: low bytes, the same inverted (what differs came
 * from the window), and high bytes. The bytes nobody refers to become zeros and cost nothing: on Debian layers a
 * window then packs to 2.3 KB instead of some 15.
 */
export class WindowTrimmer {
  readonly #probe: RawProbe = createRawProbe();
  readonly #captured = Buffer.allocUnsafeSlow(CAPTURE_BYTES);
  readonly #low = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  readonly #inverted = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  readonly #high = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #filled = 0;
  #pending: { readonly point: ScanPoint; readonly window: Uint8Array } | undefined;
  #closed = false;

  /** A checkpoint with its whole window (32 KiB); input from its first byte on follows through `feed`. */
  begin(point: ScanPoint, window: Uint8Array): void {
    this.finish();
    this.#pending = { point, window };
    this.#filled = 0;
  }

  /** Input of the stream, as it passes. */
  feed(bytes: Uint8Array): void {
    if (this.#pending === undefined) return;
    const part = bytes.subarray(0, CAPTURE_BYTES - this.#filled);
    this.#captured.set(part, this.#filled);
    this.#filled += part.byteLength;
    if (this.#filled === CAPTURE_BYTES) this.finish();
  }

  /** Settles the checkpoint under way with the input there is. */
  finish(): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    this.#pending = undefined;
    const { point, window } = pending;
    point.window = packWindow(this.#trim(window, point.bits));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#probe.close();
  }

  #trim(window: Uint8Array, bits: number): Uint8Array {
    const input = this.#captured.subarray(0, this.#filled);
    const count = this.#probe.decode(input, bits, PROBE.low, this.#low);
    this.#probe.decode(input, bits, PROBE.inverted, this.#inverted);
    this.#probe.decode(input, bits, PROBE.high, this.#high);
    const trimmed = Buffer.alloc(WINDOW_BYTES);
    for (let index = 0; index < count; index += 1) {
      const byte = this.#low[index] as number;
      if (byte === this.#inverted[index]) continue;
      const at = byte + 256 * (this.#high[index] as number);
      trimmed[at] = window[at] as number;
    }
    return trimmed;
  }
}

const PROBE = {
  low: probeOf((at) => at & 0xff),
  inverted: probeOf((at) => ~at & 0xff),
  high: probeOf((at) => at >> 8),
} as const;

function probeOf(valueAt: (at: number) => number): Uint8Array {
  const probe = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  for (let at = 0; at < WINDOW_BYTES; at += 1) probe[at] = valueAt(at);
  return probe;
}

/** A window as it is stored. */
export function packWindow(window: Uint8Array): Uint8Array {
  return zstdCompressSync(window);
}
