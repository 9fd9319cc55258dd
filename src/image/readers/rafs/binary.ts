import { invalidRafs } from './model.ts';

/** Little-endian numbers of a bootstrap or blob index; whatever lies outside of it is INVALID_LAYER. */
export class BinaryReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;

  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get size(): number {
    return this.bytes.byteLength;
  }

  u8(at: number): number {
    this.check(at, 1);
    return this.#view.getUint8(at);
  }

  u16(at: number): number {
    this.check(at, 2);
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    this.check(at, 4);
    return this.#view.getUint32(at, true);
  }

  /** Beyond 53 bits is refused: no offset or size is that large. */
  u64(at: number): number {
    const value = this.big(at);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalidRafs(`${this.#what}: ${value} at byte ${at}`);
    return Number(value);
  }

  /** Signed, for times. */
  i64(at: number): number {
    const value = BigInt.asIntN(64, this.big(at));
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER)) {
      throw invalidRafs(`${this.#what}: ${value} at byte ${at}`);
    }
    return Number(value);
  }

  big(at: number): bigint {
    this.check(at, 8);
    return this.#view.getBigUint64(at, true);
  }

  /** A view of `length` bytes. */
  slice(at: number, length: number): Uint8Array {
    this.check(at, length);
    return this.bytes.subarray(at, at + length);
  }

  /** Text up to the first NUL, one char per byte. */
  text(at: number, length: number): string {
    const field = this.slice(at, length);
    const end = field.indexOf(0);
    return Buffer.from(field.buffer, field.byteOffset, end < 0 ? length : end).toString('latin1');
  }

  check(at: number, length: number): void {
    if (!(at >= 0 && length >= 0 && at + length <= this.size)) {
      throw invalidRafs(`${this.#what}: ${length} bytes at ${at} of ${this.size}`);
    }
  }
}
