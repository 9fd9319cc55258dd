import { ShoalError } from '../../errors.ts';

/**
 * A reader of flatbuffers (the binary format's "Internals" page) that trusts nothing: every offset is checked, and what is
 * read in all is bounded by the buffer's length, so that tables that share their strings cannot unfold to more than was sent.
 */
export class FlatBuffer {
  readonly bytes: Buffer;
  #left: number;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#left = UNFOLD_FACTOR * bytes.byteLength;
  }

  root(): FlatTable {
    return this.tableAt(this.uint32(0));
  }

  /** The table at this position. */
  tableAt(at: number): FlatTable {
    this.#check(at, 4);
    const vtable = at - this.bytes.readInt32LE(at);
    this.#check(vtable, 4);
    const vtableBytes = this.bytes.readUInt16LE(vtable);
    const tableBytes = this.bytes.readUInt16LE(vtable + 2);
    this.#check(vtable, vtableBytes);
    this.#check(at, tableBytes);
    this.#use(vtableBytes < 4 || tableBytes < 4 ? Number.POSITIVE_INFINITY : tableBytes);
    return new FlatTable(this, { at, tableBytes, vtable, vtableBytes });
  }

  /** What the length-prefixed run at `at` holds, as a view: `size` bytes per element. */
  vectorAt(at: number, size: number): Buffer {
    const bytes = this.uint32(at) * size;
    this.#check(at + 4, bytes);
    this.#use(4 + bytes);
    return this.bytes.subarray(at + 4, at + 4 + bytes);
  }

  uint32(at: number): number {
    this.#check(at, 4);
    return this.bytes.readUInt32LE(at);
  }

  /** Where the reference at `at` leads. */
  follow(at: number): number {
    return at + this.uint32(at);
  }

  #check(at: number, length: number): void {
    if (!(at >= 0 && at + length <= this.bytes.byteLength)) throw invalid('refers to a place outside it');
  }

  #use(bytes: number): void {
    this.#left -= bytes;
    if (!(this.#left >= 0)) throw invalid('holds more than its length allows');
  }
}

/** Writers share vtables and may share strings; a buffer may unfold to this many times its length. */
const UNFOLD_FACTOR = 4;
const NOTHING = Buffer.alloc(0);

/** A table: fields by their number in the schema, absent ones with the schema's default. Every method throws INVALID_LAYER. */
export class FlatTable {
  readonly #buffer: FlatBuffer;
  readonly #at: number;
  readonly #tableBytes: number;
  readonly #vtable: number;
  readonly #vtableBytes: number;

  constructor(buffer: FlatBuffer, place: { at: number; tableBytes: number; vtable: number; vtableBytes: number }) {
    this.#buffer = buffer;
    this.#at = place.at;
    this.#tableBytes = place.tableBytes;
    this.#vtable = place.vtable;
    this.#vtableBytes = place.vtableBytes;
  }

  /** A string, or a vector of bytes; empty when absent. A view. */
  bytes(field: number): Buffer {
    const at = this.#place(field, 4);
    return at === undefined ? NOTHING : this.#buffer.vectorAt(this.#buffer.follow(at), 1);
  }

  int8(field: number, absent: number): number {
    const at = this.#place(field, 1);
    return at === undefined ? absent : this.#buffer.bytes.readInt8(at);
  }

  int32(field: number): number {
    const at = this.#place(field, 4);
    return at === undefined ? 0 : this.#buffer.bytes.readInt32LE(at);
  }

  uint32(field: number): number {
    return this.int32(field) >>> 0;
  }

  /** A 64-bit integer that fits a number. */
  int64(field: number): number {
    const at = this.#place(field, 8);
    if (at === undefined) return 0;
    const value = Number(this.#buffer.bytes.readBigInt64LE(at));
    if (!Number.isSafeInteger(value)) throw invalid(`has the number ${value}`);
    return value;
  }

  table(field: number): FlatTable | undefined {
    const at = this.#place(field, 4);
    return at === undefined ? undefined : this.#buffer.tableAt(this.#buffer.follow(at));
  }

  /** Positions that the elements of a vector of tables or strings lead to. */
  *references(field: number): Generator<number> {
    const at = this.#place(field, 4);
    if (at === undefined) return;
    const vector = this.#buffer.follow(at);
    const { byteLength } = this.#buffer.vectorAt(vector, 4);
    for (let element = 0; element < byteLength; element += 4) yield this.#buffer.follow(vector + 4 + element);
  }

  #place(field: number, size: number): number | undefined {
    const slot = 4 + 2 * field;
    if (slot + 2 > this.#vtableBytes) return undefined;
    const offset = this.#buffer.bytes.readUInt16LE(this.#vtable + slot);
    if (offset === 0) return undefined;
    if (offset < 4 || offset + size > this.#tableBytes) throw invalid('has a field outside its table');
    return this.#at + offset;
  }
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a ztoc ${why}`);
}
