import { promisify } from 'node:util';
import { gunzip, zstdDecompress } from 'node:zlib';
import { ShoalError } from '../../../errors.ts';
import { invalidRafs } from './model.ts';

/** Where the layer's tar holds the bootstrap; older tools leave the folder out. */
const NAMES = ['image/image.boot', 'image.boot'];
const BLOCK_BYTES = 512;

/**
 * The RAFS bootstrap out of its layer: a tar, compressed by gzip or zstd or not at all. Decompression stops at `maxBytes`
 * (TOO_LARGE). Throws INVALID_LAYER when the tar is damaged or holds none.
 */
export async function bootstrapFile(layer: Uint8Array, { maxBytes }: { maxBytes: number }): Promise<Uint8Array> {
  const tar = await decompress(layer, maxBytes);
  let longName: string | undefined;
  for (let at = 0; at + BLOCK_BYTES <= tar.byteLength; ) {
    const header = Buffer.from(tar.buffer, tar.byteOffset + at, BLOCK_BYTES);
    if (header.every((byte) => byte === 0)) break;
    const size = sizeOf(header);
    const dataAt = at + BLOCK_BYTES;
    if (!(size >= 0) || dataAt + size > tar.byteLength) throw invalidRafs('the tar around it is damaged');
    const type = String.fromCharCode(header[156] as number);
    const data = tar.subarray(dataAt, dataAt + size);
    if (type === 'L') longName = cString(Buffer.from(data));
    else if (type !== 'x' && type !== 'g') {
      const name = longName ?? nameOf(header);
      longName = undefined;
      if (NAMES.includes(name.replace(/^(\.?\/)+/, '')) && (type === '0' || type === '\0')) return data;
    }
    at = dataAt + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
  }
  throw new ShoalError('INVALID_LAYER', `the bootstrap layer holds no ${NAMES[0]}`);
}

async function decompress(layer: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  const options = { maxOutputLength: maxBytes, chunkSize: 1024 * 1024 };
  try {
    if (layer[0] === 0x1f && layer[1] === 0x8b) return await promisify(gunzip)(layer, options);
    if (layer[0] === 0x28 && layer[1] === 0xb5) return await promisify(zstdDecompress)(layer, options);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') {
      throw new ShoalError('TOO_LARGE', `the RAFS bootstrap has more than ${maxBytes} bytes`, { cause });
    }
    throw new ShoalError('INVALID_LAYER', 'the bootstrap layer is damaged', { cause });
  }
  return layer;
}

function nameOf(header: Buffer): string {
  const name = cString(header.subarray(0, 100));
  const isPosix = header.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? cString(header.subarray(345, 500)) : '';
  return prefix === '' ? name : `${prefix}/${name}`;
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end < 0 ? bytes.byteLength : end);
}

/** Octal text, or base-256 when bit 7 of the first byte is set. */
function sizeOf(header: Buffer): number {
  if (((header[124] as number) & 0x80) !== 0) {
    const size = header.readBigUInt64BE(128);
    return size > BigInt(Number.MAX_SAFE_INTEGER) ? Number.NaN : Number(size);
  }
  const text = header.toString('latin1', 124, 136).replace(/[ \0].*$/s, '');
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}
