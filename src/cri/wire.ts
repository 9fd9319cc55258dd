import { ShoalError } from '../errors.ts';

/** A length-delimited field of a protobuf message; others are passed over. */
export interface WireField {
  readonly number: number;
  readonly bytes: Uint8Array;
}

/** Fields of one message; those of the CRI have under ten, repeated ones some hundred. */
const MAX_FIELDS = 4_096;

/**
 * The length-delimited fields of a protobuf message (protobuf.dev, encoding), in order; unknown ones included. Throws
 * INVALID_ARGUMENT for bytes that are no message.
 */
export function wireFields(message: Uint8Array): WireField[] {
  const fields: WireField[] = [];
  let at = 0;

  function varint(): number {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const byte = message[at];
      if (byte === undefined) throw malformed('it ends within a number');
      at += 1;
      // Beyond 53 bits the value is not exact: only lengths and tags matter, and those are checked.
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw malformed('a number is too long');
  }

  function skip(bytes: number): void {
    if (bytes > message.byteLength - at) throw malformed('it ends within a field');
    at += bytes;
  }

  for (let seen = 0; at < message.byteLength; seen += 1) {
    if (seen === MAX_FIELDS) throw malformed(`it has more than ${MAX_FIELDS} fields`);
    const tag = varint();
    const number = Math.floor(tag / 8);
    if (number < 1 || number > 0x1fff_ffff) throw malformed('a field number is out of range');
    switch (tag % 8) {
      case 0:
        varint();
        break;
      case 1:
        skip(8);
        break;
      case 2: {
        const length = varint();
        const start = at;
        skip(length);
        fields.push({ number, bytes: message.subarray(start, at) });
        break;
      }
      case 5:
        skip(4);
        break;
      default:
        throw malformed('a field has a type that is not in use');
    }
  }
  return fields;
}

function malformed(why: string): ShoalError {
  return new ShoalError('INVALID_ARGUMENT', `not a protobuf message: ${why}`);
}
