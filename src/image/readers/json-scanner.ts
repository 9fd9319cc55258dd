import { ShoalError } from '../../errors.ts';
import { nextTurn } from './next-turn.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** Elements handled before other work gets a turn: about 5 ms. */
const ELEMENTS_PER_TURN = 2000;

/** A value that was cut out of a document: `value` as JSON.parse gave it, and whether its strings are UTF-16. */
export interface ScannedValue {
  readonly value: unknown;
  /** False: one char per byte of the document. True: ordinary text, because the value held a `\u` escape. */
  readonly decoded: boolean;
}

/**
 * Walks a UTF-8 JSON object without making objects of all of it: `onElement` gets each element of the array `arrayKey`,
 * `onMember` every other member. Elements larger than `maxElementBytes` are refused. Throws INVALID_LAYER.
 */
export async function scanJson(
  json: Uint8Array,
  init: {
    arrayKey: string;
    maxElementBytes: number;
    onElement: (element: ScannedValue, index: number) => void;
    onMember: (key: string, member: ScannedValue) => void;
    signal: AbortSignal;
  },
): Promise<void> {
  const bytes = Buffer.from(json.buffer, json.byteOffset, json.byteLength);
  const cut = (from: number, to: number): ScannedValue => parseSlice(bytes, from, to, init.maxElementBytes);
  const walkArray = async (from: number): Promise<number> => {
    if (bytes[from] !== OPEN_BRACKET) throw malformed(from, `"${init.arrayKey}" is not an array`);
    let at = skipSpace(bytes, from + 1);
    if (bytes[at] === CLOSE_BRACKET) return at + 1;
    for (let index = 0; ; index += 1) {
      const end = skipValue(bytes, at);
      init.onElement(cut(at, end), index);
      if (index % ELEMENTS_PER_TURN === ELEMENTS_PER_TURN - 1) await nextTurn(init.signal);
      at = skipSpace(bytes, end);
      if (bytes[at] === CLOSE_BRACKET) return at + 1;
      at = skipSpace(bytes, expectByte(bytes, at, COMMA));
    }
  };
  let at = skipSpace(bytes, expectByte(bytes, skipSpace(bytes, 0), OPEN_BRACE));
  for (let first = true; bytes[at] !== CLOSE_BRACE; first = false) {
    if (!first) at = skipSpace(bytes, expectByte(bytes, at, COMMA));
    if (bytes[at] !== QUOTE) throw malformed(at, 'a member name is missing');
    const keyEnd = skipValue(bytes, at);
    const key = String(cut(at, keyEnd).value);
    at = skipSpace(bytes, expectByte(bytes, skipSpace(bytes, keyEnd), COLON));
    if (key === init.arrayKey) {
      at = skipSpace(bytes, await walkArray(at));
    } else {
      const end = skipValue(bytes, at);
      init.onMember(key, cut(at, end));
      at = skipSpace(bytes, end);
    }
  }
  if (skipSpace(bytes, at + 1) !== bytes.byteLength) throw malformed(at, 'something follows the document');
}

/**
 * JSON.parse on latin1 text leaves every string as the bytes it had in the file, which is what a ByteString is, and
 * saves decoding and encoding again. Only `\u` escapes need the detour through real text.
 */
function parseSlice(bytes: Buffer, from: number, to: number, maxBytes: number): ScannedValue {
  if (to - from > maxBytes) throw malformed(from, `one value is longer than ${maxBytes} bytes`);
  let text = bytes.toString('latin1', from, to);
  const decoded = text.includes('\\u');
  if (decoded) text = bytes.toString('utf8', from, to);
  try {
    return { value: JSON.parse(text), decoded };
  } catch (cause) {
    throw new ShoalError('INVALID_LAYER', `the JSON at byte ${from} is malformed`, { cause });
  }
}

/** End of the value that starts at `at`; checks nothing but brackets and quotes, JSON.parse does the rest. */
function skipValue(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first === QUOTE) return skipString(bytes, at);
  if (first !== OPEN_BRACE && first !== OPEN_BRACKET) return skipScalar(bytes, at);
  let depth = 0;
  for (let next = at; next < bytes.byteLength; ) {
    const byte = bytes[next];
    if (byte === QUOTE) {
      next = skipString(bytes, next);
      continue;
    }
    next += 1;
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth += 1;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
      if (depth === 0) return next;
    }
  }
  throw malformed(at, 'a value does not end');
}

function skipString(bytes: Uint8Array, at: number): number {
  for (let next = at + 1; next < bytes.byteLength; next += 1) {
    const byte = bytes[next];
    if (byte === QUOTE) return next + 1;
    if (byte === BACKSLASH) next += 1;
  }
  throw malformed(at, 'a string does not end');
}

function skipScalar(bytes: Uint8Array, at: number): number {
  let next = at;
  while (next < bytes.byteLength) {
    const byte = bytes[next] as number;
    if (byte === COMMA || byte === CLOSE_BRACKET || byte === CLOSE_BRACE || byte <= 0x20) break;
    next += 1;
  }
  if (next === at) throw malformed(at, 'a value is missing');
  return next;
}

function skipSpace(bytes: Uint8Array, at: number): number {
  let next = at;
  for (; ; next += 1) {
    const byte = bytes[next];
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) return next;
  }
}

function expectByte(bytes: Uint8Array, at: number, byte: number): number {
  if (bytes[at] !== byte) throw malformed(at, `"${String.fromCharCode(byte)}" is missing`);
  return at + 1;
}

function malformed(at: number, why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `malformed JSON at byte ${at}: ${why}`);
}
