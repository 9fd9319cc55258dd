import { ShoalError } from '../../errors.ts';
import { createInflater, type Inflater } from '../../kernel/zlib.ts';
import { type PassScanner, Progress, type ScanPoint } from './scanner.ts';
import { WINDOW_BYTES, WindowTrimmer } from './window-trimmer.ts';

/**
 * Output between two checkpoints at least, bytes: what a cold read of a small file decodes, and what a window of some 2 KiB
 * is kept for. With twice as much, starting Python out of a Debian layer fetched a quarter more. A little less than two
 * chunks of a large file, for the block that a chunk starts in begins before it.
 */
const SPAN_BYTES = 896 * 1024;
/** Output per step: the grain of what is known about how much input makes how much output. */
const STEP_BYTES = 64 * 1024;
/** Where output is put before it is moved to make room for more; windows are cut out of it. */
const OUTPUT_BYTES = 1024 * 1024;
const GZIP_MAGIC = 0x8b1f;
/** Steps in a row that may only end a block. */
const MAX_IDLE_STEPS = 8;

/**
 * Decodes a gzip stream of any number of members (RFC 1952) and notes checkpoints on the way: the start of a block that a
 * chunk starts in, in the middle of a member with the window it needs, or a member's first. What comes of a chunk in front
 * of the next checkpoint's block is then whole, so that hardly anything is fetched and decoded twice. Bytes after the last
 * member that start no other one are passed over, as gzip does. Checks each member's CRC. Throws INVALID_LAYER.
 */
export function createGzipScanner(components: {
  onOutput: (bytes: Uint8Array) => void;
  /** Where in the output the chunk starts that began last; below 0 before the first. */
  chunkStart: () => number;
}): PassScanner {
  return new GzipScanner(components);
}

class GzipScanner implements PassScanner {
  readonly points: ScanPoint[] = [];
  readonly #onOutput: (bytes: Uint8Array) => void;
  readonly #chunkStart: () => number;
  readonly #inflater: Inflater = createInflater();
  readonly #trimmer = new WindowTrimmer();
  /** History of one window, then room for output. */
  readonly #out = Buffer.allocUnsafeSlow(WINDOW_BYTES + OUTPUT_BYTES);
  #outAt = WINDOW_BYTES;
  #inOffset = 0;
  #outOffset = 0;
  #memberOut = 0;
  #nextPoint = 0;
  /** Start of the block under way, when it may become a checkpoint. */
  #candidate: ScanPoint | undefined;
  readonly #progress = new Progress();
  #idleSteps = 0;
  /** Last byte of the input before this one. */
  #lastByte = 0;
  #state: 'between' | 'member' | 'garbage' = 'between';
  /** Input between members too short to tell what it is. */
  #held = Buffer.alloc(0);
  #members = 0;
  #closed = false;

  constructor(components: { onOutput: (bytes: Uint8Array) => void; chunkStart: () => number }) {
    this.#onOutput = components.onOutput;
    this.#chunkStart = components.chunkStart;
  }

  write(bytes: Uint8Array): void {
    let input = bytes;
    if (this.#held.byteLength > 0) {
      const joined = Buffer.allocUnsafeSlow(this.#held.byteLength + bytes.byteLength);
      joined.set(this.#held);
      joined.set(bytes, this.#held.byteLength);
      input = joined;
      this.#held = Buffer.alloc(0);
    }
    this.#trimmer.feed(input);
    let at = 0;
    while (at < input.byteLength && this.#state !== 'garbage') {
      if (this.#state === 'between' && !this.#beginMember(input.subarray(at))) return;
      at += this.#step(input, at);
    }
    this.#lastByte = input.at(-1) ?? 0;
  }

  end(): void {
    if (this.#state === 'member') throw new ShoalError('INVALID_LAYER', 'the gzip stream is cut short');
    if (this.#members === 0) throw new ShoalError('INVALID_LAYER', 'the layer is not gzip');
    this.#settle();
    this.#trimmer.finish();
    this.close();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#trimmer.close();
    this.#inflater.close();
  }

  inputFor(outOffset: number): number {
    return this.#progress.inputFor(outOffset);
  }

  /** False when more input is needed to tell, or none of it matters. */
  #beginMember(rest: Uint8Array): boolean {
    if (rest.byteLength < 2) {
      this.#held = Buffer.from(rest);
      return false;
    }
    if ((rest[0] as number) + 256 * (rest[1] as number) !== GZIP_MAGIC) {
      if (this.#members === 0) throw new ShoalError('INVALID_LAYER', 'the layer is not gzip');
      this.#state = 'garbage';
      return false;
    }
    if (this.#members > 0) this.#inflater.reset();
    this.#members += 1;
    this.#memberOut = 0;
    this.#state = 'member';
    return true;
  }

  /** One call of the inflater; bytes of input it took. */
  #step(input: Uint8Array, at: number): number {
    if (this.#outAt === this.#out.byteLength) {
      this.#out.copyWithin(0, OUTPUT_BYTES);
      this.#outAt = WINDOW_BYTES;
    }
    const room = Math.min(STEP_BYTES, this.#out.byteLength - this.#outAt);
    const step = this.#inflater.run(
      { bytes: input, start: at, end: input.byteLength },
      { bytes: this.#out, start: this.#outAt, end: this.#outAt + room },
      { stopAtBlock: this.#outOffset >= this.#nextPoint },
    );
    this.#idleSteps = step.taken === 0 && step.made === 0 ? this.#idleSteps + 1 : 0;
    if (this.#idleSteps > MAX_IDLE_STEPS) throw new ShoalError('INVALID_LAYER', 'the gzip stream does not go on');
    const made = this.#out.subarray(this.#outAt, this.#outAt + step.made);
    this.#outAt += step.made;
    this.#inOffset += step.taken;
    this.#outOffset += step.made;
    this.#memberOut += step.made;
    if (step.made > 0) {
      this.#progress.note(this.#outOffset, this.#inOffset);
      this.#onOutput(made);
    }
    if (step.atBlock && this.#outOffset >= this.#nextPoint) {
      this.#settle();
      if (this.#outOffset >= this.#nextPoint) this.#propose(step.bits, input, at + step.taken);
    }
    if (step.ended) this.#state = 'between';
    return step.taken;
  }

  /** A checkpoint, when a chunk has started since the candidate. */
  #settle(): void {
    const point = this.#candidate;
    this.#candidate = undefined;
    if (point === undefined || this.#chunkStart() < point.outOffset) return;
    this.points.push(point);
    this.#nextPoint = point.outOffset + SPAN_BYTES;
    this.#trimmer.keep(point);
  }

  #propose(bits: number, input: Uint8Array, inputAt: number): void {
    const inOffset = this.#inOffset - (bits > 0 ? 1 : 0);
    const reach = Math.min(this.#memberOut, WINDOW_BYTES);
    const point: ScanPoint = { inOffset, outOffset: this.#outOffset, bits, window: undefined };
    this.#candidate = point;
    if (reach === 0) return;
    this.#trimmer.begin(point, this.#out.subarray(this.#outAt - reach, this.#outAt));
    if (bits > 0) this.#trimmer.feed(Uint8Array.of(inputAt > 0 ? (input[inputAt - 1] as number) : this.#lastByte));
    this.#trimmer.feed(input.subarray(inputAt));
  }
}
