import { ShoalError } from '../../errors.ts';
import { showPath } from '../entry-rules.ts';
import type { ByteString } from '../layer-tree.ts';

/** Records of a pax extended header: keys and values as bytes, in order (old sparse maps repeat keys). */
export type PaxRecords = readonly (readonly [key: ByteString, value: ByteString])[];

/** Longest length field: no record is near 10^9 bytes. */
const MAX_LENGTH_DIGITS = 10;
/** Keys whose value is a name, and so has no NUL. */
const NAMES = new Set(['path', 'linkpath', 'uname', 'gname']);

/** Parses `<length> <key>=<value>\n` records (POSIX pax, ustar interchange format). Throws INVALID_LAYER. */
export function parsePax(body: Buffer): PaxRecords {
  const records: [ByteString, ByteString][] = [];
  let at = 0;
  while (at < body.byteLength) {
    const space = body.indexOf(0x20, at);
    if (space < 0 || space - at > MAX_LENGTH_DIGITS) throw invalid('has a record without a length');
    const digits = body.toString('latin1', at, space);
    const length = /^[0-9]+$/.test(digits) ? Number(digits) : Number.NaN;
    const end = at + length;
    if (!(end <= body.byteLength && end > space + 2) || body[end - 1] !== 0x0a) {
      throw invalid('has a record with a wrong length');
    }
    const equals = body.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end || equals === space + 1) throw invalid('has a record without a key');
    const key = body.toString('latin1', space + 1, equals) as ByteString;
    const value = body.toString('latin1', equals + 1, end - 1) as ByteString;
    if (key.includes('\0') || (NAMES.has(key) && value.includes('\0'))) throw invalid(`has a NUL in ${showPath(key)}`);
    records.push([key, value]);
    at = end;
  }
  return records;
}

/** A decimal that is a size, an id or a count. Throws INVALID_LAYER. */
export function paxInteger(key: string, value: string): number {
  const number = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw invalid(`has ${showPath(value as ByteString)} for ${key}`);
  return number;
}

/** Seconds with a fraction, possibly negative; digits beyond nanoseconds are cut off. Throws INVALID_LAYER. */
export function paxTime(value: string): { sec: number; nsec: number } {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]{0,64}))?$/.exec(value);
  if (match === null) throw invalid(`has ${showPath(value as ByteString)} for a time`);
  const [, sign, whole, fraction = ''] = match;
  const sec = Number(whole);
  const nsec = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (sign === '') return { sec, nsec };
  return nsec === 0 ? { sec: 0 - sec, nsec } : { sec: -sec - 1, nsec: 1_000_000_000 - nsec };
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a pax header ${why}`);
}
