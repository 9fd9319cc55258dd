import { ShoalError } from '../../errors.ts';
import type { ByteString } from '../layer-tree.ts';

/** A tar header block and everything it is measured in. */
export const TAR_BLOCK_BYTES = 512;

/** The fields of one header block (POSIX ustar, GNU, star or the format of Version 7), as far as a layer needs them. */
export interface TarHeader {
  readonly type: string;
  readonly name: ByteString;
  readonly linkName: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtimeSec: number;
  readonly devMajor: number;
  readonly devMinor: number;
  /** GNU's header; the place of `prefix` holds other things there. */
  readonly isGnu: boolean;
}

/** `usta` as a number, `r`. */
const USTA = 0x75737461;
const R = 0x72;
const SPACE = 0x20;
const CHECKSUM_AT = 148;
const CHECKSUM_BYTES = 8;

/**
 * Parses one header block; undefined for a block of zeros. As Go's archive/tar, which is what containerd unpacks with.
 * Throws INVALID_LAYER.
 */
export function parseTarHeader(block: Buffer): TarHeader | undefined {
  if (block[0] === 0 && block.every((byte) => byte === 0)) return undefined;
  checkSum(block);
  const hasMagic = block.readUInt32BE(257) === USTA && block[261] === R;
  const isUstar = hasMagic && block[262] === 0;
  const isGnu = hasMagic && block[262] === SPACE && block[263] === SPACE && block[264] === 0;
  const name = text(block, 0, 100);
  const prefix = isUstar ? text(block, 345, block.toString('latin1', 508, 512) === 'tar\0' ? 131 : 155) : '';
  const hasDevices = isUstar || isGnu;
  return {
    type: String.fromCharCode(block[156] as number),
    name: (prefix === '' ? name : `${prefix}/${name}`) as ByteString,
    linkName: text(block, 157, 100),
    mode: tarNumber(block, 100, 8),
    uid: tarNumber(block, 108, 8),
    gid: tarNumber(block, 116, 8),
    size: tarNumber(block, 124, 12),
    mtimeSec: tarNumber(block, 136, 12, { signed: true }),
    devMajor: hasDevices ? tarNumber(block, 329, 8) : 0,
    devMinor: hasDevices ? tarNumber(block, 337, 8) : 0,
    isGnu,
  };
}

/** A number as octal text, or in base 256 when its first byte has the high bit (GNU). Throws INVALID_LAYER. */
export function tarNumber(block: Buffer, at: number, length: number, { signed = false } = {}): number {
  const first = block[at] as number;
  const value = (first & 0x80) === 0 ? octal(block, at, length) : base256(block, at, length);
  if (!Number.isSafeInteger(value) || (value < 0 && !signed)) throw invalid('has a number out of range');
  return value;
}

function octal(block: Buffer, at: number, length: number): number {
  const end = at + length;
  let index = at;
  while (index < end && isPadding(block[index] as number)) index += 1;
  let value = 0;
  for (; index < end && !isPadding(block[index] as number); index += 1) {
    const digit = (block[index] as number) - 0x30;
    if (!(digit >= 0 && digit <= 7)) throw invalid('has a number that is not octal');
    value = value * 8 + digit;
  }
  return value;
}

function isPadding(byte: number): boolean {
  return byte === 0 || byte === SPACE;
}

function base256(block: Buffer, at: number, length: number): number {
  const negative = ((block[at] as number) & 0x40) !== 0;
  let value = negative ? ((block[at] as number) | 0x80) - 256 : (block[at] as number) & 0x7f;
  for (let index = at + 1; index < at + length; index += 1) value = value * 256 + (block[index] as number);
  return value;
}

/** The checksum's own bytes count as spaces; old writers sum signed bytes. */
function checkSum(block: Buffer): void {
  let unsigned = CHECKSUM_BYTES * SPACE;
  let high = 0;
  for (let index = 0; index < TAR_BLOCK_BYTES; index += 1) {
    const byte = block[index] as number;
    unsigned += byte;
    high += byte >> 7;
  }
  for (let index = CHECKSUM_AT; index < CHECKSUM_AT + CHECKSUM_BYTES; index += 1) {
    const byte = block[index] as number;
    unsigned -= byte;
    high -= byte >> 7;
  }
  const stored = octal(block, CHECKSUM_AT, CHECKSUM_BYTES);
  if (stored !== unsigned && stored !== unsigned - 256 * high) throw invalid('does not match its checksum');
}

function text(block: Buffer, at: number, length: number): ByteString {
  if (block[at] === 0) return '' as ByteString;
  const end = block.indexOf(0, at);
  return block.toString('latin1', at, end < 0 ? at + length : Math.min(end, at + length)) as ByteString;
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a tar header ${why}`);
}
