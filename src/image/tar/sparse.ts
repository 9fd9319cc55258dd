import { ShoalError } from '../../errors.ts';
import { TAR_BLOCK_BYTES, tarNumber } from './header.ts';
import { type PaxRecords, paxInteger } from './pax.ts';

/** A piece of a sparse file that has data in the archive; what lies between pieces are zeros. */
export interface SparsePiece {
  readonly offset: number;
  readonly length: number;
}

/** Pieces of one file: 16 MB of memory, far more than a file system would report. */
const MAX_PIECES = 500_000;
/** Digits of a number in a map within the data. */
const MAX_DIGITS = 20;

const OLD = { at: 386, count: 4, extendedAt: 482, realSizeAt: 483, nextCount: 21, nextExtendedAt: 504 } as const;
const FIELD_BYTES = 12;

/** Collects the map of GNU's old format: four pieces in the header, and more in blocks behind it. */
export class OldSparseMap {
  readonly realSize: number;
  readonly pieces: SparsePiece[] = [];
  /** Another block of the map follows. */
  more: boolean;

  constructor(header: Buffer) {
    this.realSize = tarNumber(header, OLD.realSizeAt, FIELD_BYTES);
    this.#take(header, OLD.at, OLD.count);
    this.more = header[OLD.extendedAt] !== 0;
  }

  /** The next block of the map. */
  add(block: Buffer): void {
    this.#take(block, 0, OLD.nextCount);
    this.more = block[OLD.nextExtendedAt] !== 0;
    if (this.pieces.length > MAX_PIECES) throw tooMany();
  }

  #take(block: Buffer, at: number, count: number): void {
    for (let index = 0; index < count; index += 1) {
      const start = at + 2 * FIELD_BYTES * index;
      if (block[start] === 0) return;
      this.pieces.push({
        offset: tarNumber(block, start, FIELD_BYTES),
        length: tarNumber(block, start + FIELD_BYTES, FIELD_BYTES),
      });
    }
  }
}

/** What pax records say of a sparse file: its map, or that the map is at the start of its data. */
export interface PaxSparse {
  readonly realSize: number;
  readonly map: readonly SparsePiece[] | 'in data';
}

/** GNU.sparse formats 0.0, 0.1 and 1.0; undefined when the records are not of a sparse file. Throws INVALID_LAYER. */
export function paxSparse(records: PaxRecords): PaxSparse | undefined {
  const get = (key: string): string | undefined => records.findLast(([name]) => name === `GNU.sparse.${key}`)?.[1];
  const size = get('realsize') ?? get('size');
  if (get('major') === '1' && get('minor') === '0') {
    return { realSize: paxInteger('GNU.sparse.realsize', size ?? ''), map: 'in data' };
  }
  const count = get('numblocks');
  if (count === undefined) return undefined;
  const joined = get('map');
  const numbers =
    joined !== undefined
      ? joined.split(',')
      : records
          .filter(([key]) => key === 'GNU.sparse.offset' || key === 'GNU.sparse.numbytes')
          .map(([, value]) => value);
  if (numbers.length !== 2 * paxInteger('GNU.sparse.numblocks', count))
    throw invalid('has another length than it says');
  return { realSize: paxInteger('GNU.sparse.size', size ?? ''), map: inPairs(numbers) };
}

/** Reads the map of format 1.0: a count, then offsets and lengths, one number a line, padded to whole blocks. */
export class DataSparseMap {
  readonly #numbers: number[] = [];
  #text = '';

  /** One more block; the pieces when it was the last. */
  add(block: Buffer): readonly SparsePiece[] | undefined {
    const lines = (this.#text + block.toString('latin1')).split('\n');
    this.#text = lines.pop() as string;
    for (const line of lines) {
      if (line.length > MAX_DIGITS) throw invalid('has a number that is too long');
      this.#numbers.push(paxInteger('a sparse map', line));
      const count = this.#numbers[0] as number;
      if (count > MAX_PIECES) throw tooMany();
      if (this.#numbers.length === 2 * count + 1) return inPairs(this.#numbers.slice(1));
    }
    if (this.#text.length > MAX_DIGITS) throw invalid('has a number that is too long');
    return undefined;
  }
}

/** Throws INVALID_LAYER unless the pieces ascend within the file and make up `dataLength`; drops empty ones. */
export function checkedPieces(pieces: readonly SparsePiece[], realSize: number, dataLength: number): SparsePiece[] {
  let end = 0;
  let sum = 0;
  for (const { offset, length } of pieces) {
    if (offset < end || !(offset + length <= realSize)) throw invalid('has pieces that overlap or pass the end');
    end = offset + length;
    sum += length;
  }
  if (sum !== dataLength) throw invalid(`has ${sum} bytes, its data ${dataLength}`);
  return pieces.filter(({ length }) => length > 0);
}

function inPairs(numbers: readonly (string | number)[]): SparsePiece[] {
  if (numbers.length > 2 * MAX_PIECES) throw tooMany();
  const pieces: SparsePiece[] = [];
  for (let index = 0; index + 1 < numbers.length; index += 2) {
    pieces.push({
      offset: paxInteger('a sparse map', String(numbers[index])),
      length: paxInteger('a sparse map', String(numbers[index + 1])),
    });
  }
  return pieces;
}

function tooMany(): ShoalError {
  return new ShoalError('TOO_LARGE', `a sparse file has more than ${MAX_PIECES} pieces`);
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a sparse map ${why}`);
}

/** Bytes up to the end of the last block of `length` bytes. */
export function paddingAfter(length: number): number {
  return (TAR_BLOCK_BYTES - (length % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}
