import { type Digest, type DigestAlgorithm, digestAlgorithm, digestBytes, digestFromBytes } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';

/** Algorithms by their number in messages, and how long their values are. */
const ALGORITHMS: readonly { readonly name: DigestAlgorithm; readonly bytes: number }[] = [
  { name: 'sha256', bytes: 32 },
  { name: 'sha512', bytes: 64 },
  { name: 'blake3', bytes: 32 },
];

/** Reads a message's fields in order; every method throws PEER_PROTOCOL at the end of the bytes. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get left(): number {
    return this.#bytes.byteLength - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2));
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4));
  }

  take(count: number): Uint8Array {
    const at = this.#take(count);
    return this.#bytes.subarray(at, at + count);
  }

  digest(): Digest {
    const algorithm = ALGORITHMS[this.u8()];
    if (algorithm === undefined) throw new ShoalError('PEER_PROTOCOL', 'an unknown digest algorithm');
    return digestFromBytes(algorithm.name, this.take(algorithm.bytes));
  }

  /** Throws when bytes are left: a message has exactly its fields. */
  end(): void {
    if (this.left > 0) throw new ShoalError('PEER_PROTOCOL', `${this.left} bytes too many`);
  }

  #take(count: number): number {
    if (count > this.left) throw new ShoalError('PEER_PROTOCOL', 'a message ends early');
    const at = this.#at;
    this.#at += count;
    return at;
  }
}

/** Writes a message's fields one after the other. */
export class ByteWriter {
  #bytes = new Uint8Array(64);
  #view = new DataView(this.#bytes.buffer);
  #used = 0;

  u8(value: number): this {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    const at = this.#room(2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(value: number): this {
    const at = this.#room(4);
    this.#view.setUint32(at, value);
    return this;
  }

  put(bytes: Uint8Array): this {
    const at = this.#room(bytes.byteLength);
    this.#bytes.set(bytes, at);
    return this;
  }

  digest(digest: Digest): this {
    this.u8(ALGORITHMS.findIndex(({ name }) => name === digestAlgorithm(digest)));
    return this.put(digestBytes(digest));
  }

  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#used);
  }

  /** Where to write; may replace the buffer, so it comes before the buffer is named. */
  #room(count: number): number {
    const at = this.#used;
    this.#used += count;
    if (this.#used > this.#bytes.byteLength) {
      const bytes = new Uint8Array(Math.max(this.#used, 2 * this.#bytes.byteLength));
      bytes.set(this.#bytes.subarray(0, at));
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    return at;
  }
}
