import type { Digest } from '../../core/digest.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import { decodeExtent } from '../codec.ts';
import { hashInTurns } from './hash-in-turns.ts';

/** The tar entry that holds the TOC. */
const TOC_NAME = 'stargz.index.json';
const TAR_BLOCK_BYTES = 512;
/** Room for pax headers before the entry; real writers put none. */
const MAX_TAR_HEADERS_BYTES = 64 * 1024;

/**
 * The TOC JSON out of its gzip member: a tar with the one entry `stargz.index.json`. The size is believed only up to
 * `maxJsonBytes` and the bytes only when their sha256 is `digest`. Throws TOO_LARGE before decompressing, or
 * INVALID_LAYER.
 */
export async function decodeTocMember(
  member: Uint8Array,
  init: { digest: Digest; maxJsonBytes: number; signal: AbortSignal },
): Promise<Uint8Array> {
  const { start, size } = await locateJson(member, init.signal);
  if (size > init.maxJsonBytes) {
    throw new ShoalError('TOO_LARGE', `the TOC has ${size} bytes of JSON, allowed are ${init.maxJsonBytes}`);
  }
  const decoded = await decodeToc(member, start + size, init.signal);
  const json = decoded.subarray(start);
  if (`sha256:${await hashInTurns(json, init.signal)}` !== init.digest) {
    throw new ShoalError('INVALID_LAYER', `the TOC does not match the annotated digest ${init.digest}`);
  }
  return json;
}

/** Where the JSON starts in the decoded member, and its length in bytes. */
async function locateJson(member: Uint8Array, signal: AbortSignal): Promise<{ start: number; size: number }> {
  for (let at = 0; at < MAX_TAR_HEADERS_BYTES; ) {
    const decoded = await decodeToc(member, at + TAR_BLOCK_BYTES, signal);
    const header = Buffer.from(decoded.buffer, decoded.byteOffset + at, TAR_BLOCK_BYTES);
    const size = headerSize(header);
    if (!(size >= 0)) throw new ShoalError('INVALID_LAYER', 'the tar header of the TOC has no valid size');
    const name = header.toString('latin1', 0, 100).replace(/\0.*$/s, '');
    const type = header.toString('latin1', 156, 157);
    at += TAR_BLOCK_BYTES;
    if ((type === '0' || type === '\0') && name === TOC_NAME) return { start: at, size };
    if (type !== 'x' && type !== 'g') break;
    at += Math.ceil(size / TAR_BLOCK_BYTES) * TAR_BLOCK_BYTES;
  }
  throw new ShoalError('INVALID_LAYER', `the TOC member does not begin with a tar entry ${TOC_NAME}`);
}

async function decodeToc(member: Uint8Array, length: number, signal: AbortSignal): Promise<Uint8Array> {
  try {
    return await decodeExtent('gzip', member, length, { signal });
  } catch (cause) {
    if (!hasCode(cause, 'CHUNK_CORRUPT')) throw cause;
    throw new ShoalError('INVALID_LAYER', `the TOC cannot be decompressed: ${cause.message}`, { cause });
  }
}

/** The size field: octal text, or base-256 when bit 7 of its first byte is set. */
function headerSize(header: Buffer): number {
  if (((header[124] as number) & 0x80) !== 0) {
    let size = BigInt(header[124] as number) & 0x7fn;
    for (let at = 125; at < 136; at += 1) size = (size << 8n) | BigInt(header[at] as number);
    return Number(size);
  }
  const text = header.toString('latin1', 124, 136).replace(/[ \0].*$/s, '');
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : Number.NaN;
}
