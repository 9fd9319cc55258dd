import { createHash } from 'node:crypto';
import { constants, crc32, deflateRawSync } from 'node:zlib';
import { type Digest, parseDigest } from '../../../src/core/digest.ts';
import { DEFAULT_OPTIONS, digestOf, type WrittenBlob, type WrittenChunk } from './blob-writer.ts';
import { type RafsEntry, TYPE } from './entries.ts';
import { type BootstrapLayer, bootstrapLayer } from './image.ts';
import { bootstrapV6 } from './v6-writer.ts';

/** A Nydus image that refers to a `tar.gz`: that blob, the small one with its index, and the bootstrap. */
export interface ZranImage {
  readonly data: { readonly digest: Digest; readonly bytes: Buffer };
  readonly reference: { readonly digest: Digest; readonly bytes: Buffer };
  readonly bootstrap: BootstrapLayer;
}

/** Uncompressed bytes between two checkpoints. */
const SEGMENT = 64 * 1024;
const WINDOW = 32 * 1024;
const ZRAN_FEATURES = 0x1 | 0x4 | 0x8;

/** Writes files of a tar-like stream (512 bytes between them) as gzip, with a context every 64 KiB (formats §2.5). */
export function zranImage(entries: readonly RafsEntry[], chunkSize = 0x10000): ZranImage {
  const stream: Buffer[] = [];
  let size = 0;
  const places: { entry: RafsEntry; at: number; length: number }[] = [];
  for (const entry of entries) {
    if ((entry.mode & 0o170000) !== TYPE.file) continue;
    const content = Buffer.from(entry.content ?? new Uint8Array());
    stream.push(Buffer.alloc(512, entry.path));
    size += 512;
    for (let at = 0; at < content.byteLength; at += chunkSize) {
      places.push({ entry, at: size + at, length: Math.min(chunkSize, content.byteLength - at) });
    }
    stream.push(content);
    size += content.byteLength;
  }
  const plain = Buffer.concat(stream);
  const { gz, starts } = compressed(plain);
  const contexts = starts.map((start, index) => contextOf(plain, gz, starts, start, index));
  const chunks: WrittenChunk[] = [];
  const files = new Map<RafsEntry, number[]>();
  let uncompressedOffset = 0;
  for (const { entry, at, length } of places) {
    const context = Math.floor(at / SEGMENT);
    const index = chunks.length;
    chunks.push({
      blob: 0,
      index,
      digest: digestOf(plain.subarray(at, at + length), 'sha256'),
      compressedOffset: starts[context] as number,
      compressedSize: 1,
      uncompressedOffset,
      uncompressedSize: length,
      isCompressed: true,
      batch: { context, offset: at - context * SEGMENT },
    });
    files.set(entry, [...(files.get(entry) ?? []), index]);
    uncompressedOffset += Math.ceil(length / 4096) * 4096;
  }
  for (const entry of entries) if (!files.has(entry)) files.set(entry, []);
  const table = Buffer.concat([
    ...chunks.map(entryOf),
    ...contexts.map(({ head }) => head),
    ...contexts.map(({ dictionary }) => dictionary),
  ]);
  const zranAt = 24 * chunks.length;
  const reference = Buffer.concat([table, headerOf(chunks.length, contexts.length, zranAt, table.byteLength)]);
  const metaBlob = { digest: createHash('sha256').update(reference).digest(), size: reference.byteLength };
  const id = createHash('sha256').update(gz).digest('hex');
  const written: WrittenBlob = {
    bytes: gz,
    id,
    chunks: chunks.map(({ batch: _, ...chunk }) => chunk),
    features: ZRAN_FEATURES,
    uncompressedSize: uncompressedOffset,
    tocSize: 0,
    tocDigest: new Uint8Array(32),
    ci: { compressor: 0, offset: 0, compressedSize: table.byteLength, uncompressedSize: table.byteLength },
    metaBlob,
  };
  const options = { ...DEFAULT_OPTIONS, compressor: 'gzip', digester: 'sha256', chunkSize } as const;
  return {
    data: { digest: parseDigest(`sha256:${id}`), bytes: gz },
    reference: { digest: parseDigest(`sha256:${metaBlob.digest.toString('hex')}`), bytes: reference },
    bootstrap: bootstrapLayer(bootstrapV6(entries, files, [written], options), 6),
  };
}

/** One gzip member whose blocks end with a byte at each segment; later segments refer back to earlier ones. */
function compressed(plain: Buffer): { gz: Buffer; starts: number[] } {
  const parts: Buffer[] = [Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3])];
  const starts: number[] = [];
  let size = 10;
  for (let at = 0; at < plain.byteLength; at += SEGMENT) {
    starts.push(size);
    const part = deflateRawSync(plain.subarray(at, at + SEGMENT), {
      finishFlush: constants.Z_SYNC_FLUSH,
      ...(at === 0 ? {} : { dictionary: plain.subarray(at - WINDOW, at) }),
    });
    parts.push(part);
    size += part.byteLength;
  }
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(plain), 0);
  trailer.writeUInt32LE(plain.byteLength, 4);
  return { gz: Buffer.concat([...parts, Buffer.from([3, 0]), trailer]), starts };
}

/** A context reaches over the next segment too, so that every chunk that starts in it ends in it. */
function contextOf(
  plain: Buffer,
  gz: Buffer,
  starts: readonly number[],
  start: number,
  index: number,
): { head: Buffer; dictionary: Buffer } {
  const head = Buffer.alloc(40);
  const outOffset = index * SEGMENT;
  const end = starts[index + 2] ?? gz.byteLength - 10;
  head.writeBigUInt64LE(BigInt(start), 0);
  head.writeBigUInt64LE(BigInt(outOffset), 8);
  head.writeBigUInt64LE(BigInt(Math.max(0, index - 1) * WINDOW), 16);
  head.writeUInt32LE(end - start, 24);
  head.writeUInt32LE(Math.min(2 * SEGMENT, plain.byteLength - outOffset), 28);
  const dictionary = index === 0 ? Buffer.alloc(0) : plain.subarray(outOffset - WINDOW, outOffset);
  head.writeUInt32LE(dictionary.byteLength, 32);
  return { head, dictionary };
}

function entryOf({ uncompressedOffset, uncompressedSize, compressedOffset, batch }: WrittenChunk): Buffer {
  const bytes = Buffer.alloc(24);
  const flags = 3n; // compressed, zran
  bytes.writeBigUInt64LE(BigInt(uncompressedOffset / 4096) | (BigInt(uncompressedSize - 1) << 32n) | (flags << 56n), 0);
  bytes.writeBigUInt64LE(BigInt(compressedOffset) | (1n << 40n), 8);
  bytes.writeBigUInt64LE((BigInt(batch?.context ?? 0) << 32n) | BigInt(batch?.offset ?? 0), 16);
  return bytes;
}

function headerOf(entries: number, contexts: number, zranAt: number, tableSize: number): Buffer {
  const header = Buffer.alloc(4096);
  header.writeUInt32LE(0xb10bb10b, 0);
  header.writeUInt32LE(ZRAN_FEATURES, 4);
  header.writeUInt32LE(entries, 12);
  header.writeBigUInt64LE(BigInt(tableSize), 24);
  header.writeBigUInt64LE(BigInt(tableSize), 32);
  header.writeBigUInt64LE(BigInt(zranAt), 40);
  header.writeBigUInt64LE(BigInt(tableSize - zranAt), 48);
  header.writeUInt32LE(contexts, 56);
  header.writeUInt32LE(0xb10bb10b, 4092);
  return header;
}
