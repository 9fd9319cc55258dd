import { ShoalError } from '../errors.ts';
import type { ByteString } from './layer-tree.ts';

const START_BYTES = 64 * 1024;
/** A varint of 53 bits. */
const MAX_UINT_BYTES = 8;

/** Appends varints and length-prefixed bytes to a buffer that grows. */
export class ByteWriter {
  #buffer = Buffer.allocUnsafeSlow(START_BYTES);
  #at: number;

  /** Leaves `reserved` zero bytes at the front for a header. */
  constructor(reserved: number) {
    this.#buffer.fill(0, 0, reserved);
    this.#at = reserved;
  }

  /** A safe integer >= 0, 7 bits a byte, low bits first. Throws INVALID_ARGUMENT for anything else. */
  uint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new ShoalError('INVALID_ARGUMENT', `cannot store ${value} as an unsigned integer`);
    }
    this.#reserve(MAX_UINT_BYTES);
    let rest = value;
    while (rest > 0x7fffffff) {
      this.#buffer[this.#at++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    while (rest > 0x7f) {
      this.#buffer[this.#at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[this.#at++] = rest;
  }

  /** A byte string with its length in front. */
  bytes(text: ByteString): void {
    this.uint(text.length);
    this.#reserve(text.length);
    this.#at += this.#buffer.write(text, this.#at, 'latin1');
  }

  /** Bytes with their length in front. */
  raw(bytes: Uint8Array): void {
    this.uint(bytes.byteLength);
    this.#reserve(bytes.byteLength);
    this.#buffer.set(bytes, this.#at);
    this.#at += bytes.byteLength;
  }

  /** All that was written, memory of its own; the writer must not be used afterwards. */
  finish(): Uint8Array {
    this.#resize(this.#at);
    return this.#buffer;
  }

  #reserve(bytes: number): void {
    if (this.#at + bytes <= this.#buffer.byteLength) return;
    this.#resize(2 * Math.max(this.#buffer.byteLength, bytes));
  }

  /** What is outgrown goes back at once: a large tree would leave as much again for a collection. */
  #resize(length: number): void {
    this.#buffer = Buffer.from(this.#buffer.buffer.transfer(length));
  }
}

/** Reads what a ByteWriter wrote; throws STATE_CORRUPT instead of reading beyond the end. */
export class ByteReader {
  readonly #buffer: Buffer;
  #at: number;

  constructor(bytes: Uint8Array, at: number) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#at = at;
  }

  get atEnd(): boolean {
    return this.#at === this.#buffer.byteLength;
  }

  uint(): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < MAX_UINT_BYTES; count += 1) {
      const byte = this.#buffer[this.#at++];
      if (byte === undefined) throw cut();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
      scale *= 128;
    }
    throw new ShoalError('STATE_CORRUPT', 'stored integer beyond 53 bits');
  }

  bytes(): ByteString {
    const start = this.#skip(this.uint());
    return this.#buffer.toString('latin1', start, this.#at) as ByteString;
  }

  /** A copy, so that the whole input is not kept alive by it. */
  raw(): Uint8Array {
    const start = this.#skip(this.uint());
    return Uint8Array.prototype.slice.call(this.#buffer, start, this.#at);
  }

  #skip(length: number): number {
    const start = this.#at;
    if (start + length > this.#buffer.byteLength) throw cut();
    this.#at = start + length;
    return start;
  }
}

function cut(): ShoalError {
  return new ShoalError('STATE_CORRUPT', 'stored bytes are cut short');
}
