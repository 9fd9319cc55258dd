import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { blake3 } from '@napi-rs/blake-hash';
import { compressSync } from 'lz4-napi';

/** Options of an image, with the names nydus-image has for them. */
export interface RafsOptions {
  readonly version: 5 | 6;
  readonly compressor: 'none' | 'lz4_block' | 'gzip' | 'zstd';
  readonly digester: 'blake3' | 'sha256';
  readonly chunkSize: number;
  /** v6 only: small chunks are compressed together, up to this many bytes. */
  readonly batchSize: number;
  /** v6 only: entries of 24 bytes in the context table, which batches need. */
  readonly chunkInfoV2: boolean;
  /** v6 only: blobs with tar headers, digests and a table of contents. */
  readonly toc: boolean;
  /** v6 only: the bootstrap repeats the chunks. */
  readonly chunkTable: boolean;
  /** v5: uncompressed offsets are multiples of 4096. */
  readonly aligned: boolean;
  /** Codec of the context table. */
  readonly metaCompressor: 'none' | 'lz4_block' | 'zstd';
}

export const DEFAULT_OPTIONS: RafsOptions = {
  version: 6,
  compressor: 'zstd',
  digester: 'blake3',
  chunkSize: 0x100000,
  batchSize: 0,
  chunkInfoV2: false,
  toc: true,
  chunkTable: true,
  aligned: true,
  metaCompressor: 'none',
};

/** A chunk that was written. */
export interface WrittenChunk {
  readonly blob: number;
  readonly index: number;
  readonly digest: Uint8Array;
  readonly compressedOffset: number;
  readonly compressedSize: number;
  readonly uncompressedOffset: number;
  readonly uncompressedSize: number;
  readonly isCompressed: boolean;
  readonly batch?: { readonly context: number; readonly offset: number };
}

/** A finished blob, and what the bootstrap's blob table says of it. */
export interface WrittenBlob {
  readonly bytes: Buffer;
  readonly id: string;
  readonly chunks: readonly WrittenChunk[];
  readonly features: number;
  readonly uncompressedSize: number;
  readonly tocSize: number;
  readonly tocDigest: Uint8Array;
  readonly ci: { compressor: number; offset: number; compressedSize: number; uncompressedSize: number };
  /** The blob with the index, where that is another. */
  readonly metaBlob?: { readonly digest: Uint8Array; readonly size: number };
}

export const CODEC_NUMBERS = { none: 0, lz4_block: 1, gzip: 2, zstd: 3 } as const;
const MAGIC = 0xb10bb10b;

/** Collects the chunks of one blob. */
export class BlobWriter {
  readonly #options: RafsOptions;
  readonly #number: number;
  readonly #chunks: WrittenChunk[] = [];
  readonly #known = new Map<string, WrittenChunk>();
  readonly #data: Uint8Array[] = [];
  #dataSize = 0;
  #uncompressedOffset = 0;
  #batch: { chunks: { row: number; bytes: Uint8Array }[]; size: number } = { chunks: [], size: 0 };
  readonly #contexts: { compressed: number; uncompressed: number }[] = [];

  constructor(number: number, options: RafsOptions) {
    this.#number = number;
    this.#options = options;
  }

  /** Index of the chunk with these bytes in `chunks`, written once. */
  add(bytes: Uint8Array): number {
    const digest = digestOf(bytes, this.#options.digester);
    const key = Buffer.from(digest).toString('hex');
    const known = this.#known.get(key);
    if (known !== undefined) return known.index;
    const row = this.#chunks.length;
    const base = {
      blob: this.#number,
      index: row,
      digest,
      uncompressedOffset: this.#uncompressedOffset,
      uncompressedSize: bytes.byteLength,
    };
    const unit = this.#options.version === 6 || this.#options.aligned ? 4096 : 1;
    this.#uncompressedOffset += Math.ceil(bytes.byteLength / unit) * unit;
    const chunk: WrittenChunk =
      bytes.byteLength < this.#options.batchSize
        ? { ...base, compressedOffset: 0, compressedSize: 0, isCompressed: true }
        : { ...base, ...this.#append(bytes) };
    this.#chunks.push(chunk);
    this.#known.set(key, chunk);
    if (bytes.byteLength < this.#options.batchSize) this.#addToBatch(row, bytes);
    return row;
  }

  finish(): WrittenBlob {
    this.#endBatch();
    const parts: Uint8Array[] = [...this.#data];
    const dataSize = this.#dataSize;
    const features = this.#features();
    const id = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
    const base = {
      chunks: this.#chunks,
      features,
      uncompressedSize: Math.ceil(this.#uncompressedOffset / 4096) * 4096,
    };
    const none = { tocSize: 0, tocDigest: new Uint8Array(32) };
    if (this.#options.version === 5) {
      const bytes = Buffer.concat(parts);
      return {
        ...base,
        ...none,
        bytes,
        id: id(bytes),
        ci: { compressor: 0, offset: 0, compressedSize: 0, uncompressedSize: 0 },
      };
    }
    const table = this.#contextTable();
    const metaCodec = this.#options.metaCompressor;
    const coded = compress(table, metaCodec);
    const ciOffset = dataSize + (this.#options.toc ? 512 : 0);
    const ci = {
      compressor: CODEC_NUMBERS[metaCodec],
      offset: ciOffset,
      compressedSize: coded.byteLength,
      uncompressedSize: table.byteLength,
    };
    const header = this.#metaHeader(ci, features, table.byteLength);
    if (!this.#options.toc) {
      const bytes = Buffer.concat([...parts, coded, header]);
      return { ...base, ...none, bytes, id: id(bytes), ci };
    }
    const digests = Buffer.concat(this.#chunks.map(({ digest }) => digest));
    const digestsAt = ciOffset + coded.byteLength + 4096 + 512;
    const data = Buffer.concat(parts);
    const flag = { none: 1, zstd: 2, lz4_block: 4 }[metaCodec];
    const toc = Buffer.concat([
      tocEntry('image.blob', 1, data, 0, dataSize),
      tocEntry('blob.meta', flag, table, ciOffset, coded.byteLength),
      tocEntry('blob.meta.header', 1, header, ciOffset + coded.byteLength, 4096),
      tocEntry('blob.digest', 1, digests, digestsAt, digests.byteLength),
    ]);
    const tocPart = Buffer.concat([toc, tarHeader('rafs.blob.toc', toc.byteLength)]);
    const bytes = Buffer.concat([
      data,
      tarHeader('image.blob', dataSize),
      coded,
      header,
      tarHeader('blob.meta', coded.byteLength + 4096),
      digests,
      tarHeader('blob.digest', digests.byteLength),
      tocPart,
    ]);
    const tocDigest = createHash('sha256').update(tocPart).digest();
    return { ...base, bytes, id: id(bytes), tocSize: tocPart.byteLength, tocDigest, ci };
  }

  #append(bytes: Uint8Array): Pick<WrittenChunk, 'compressedOffset' | 'compressedSize' | 'isCompressed'> {
    const coded = compress(bytes, this.#options.compressor);
    const isCompressed = coded.byteLength < bytes.byteLength;
    const stored = isCompressed ? coded : bytes;
    const compressedOffset = this.#dataSize;
    this.#data.push(stored);
    this.#dataSize += stored.byteLength;
    return { compressedOffset, compressedSize: stored.byteLength, isCompressed };
  }

  #addToBatch(row: number, bytes: Uint8Array): void {
    if (this.#batch.size + bytes.byteLength > this.#options.batchSize) this.#endBatch();
    this.#batch.chunks.push({ row, bytes });
    this.#batch.size += bytes.byteLength;
  }

  #endBatch(): void {
    const { chunks, size } = this.#batch;
    this.#batch = { chunks: [], size: 0 };
    if (chunks.length === 0) return;
    const { compressedOffset, compressedSize } = this.#append(Buffer.concat(chunks.map(({ bytes }) => bytes)));
    const context = this.#contexts.push({ compressed: compressedSize, uncompressed: size }) - 1;
    let offset = 0;
    for (const { row, bytes } of chunks) {
      this.#chunks[row] = { ...(this.#chunks[row] as WrittenChunk), compressedOffset, batch: { context, offset } };
      offset += bytes.byteLength;
    }
  }

  #features(): number {
    const { version, chunkInfoV2, batchSize, toc, aligned } = this.#options;
    if (version === 5) return aligned ? 0x1 : 0;
    return (0x1 | (chunkInfoV2 ? 0x4 : 0) | (batchSize > 0 ? 0x80 : 0) | (toc ? 0x70000020 : 0)) >>> 0;
  }

  #contextTable(): Buffer {
    const v2 = this.#options.chunkInfoV2;
    const entries = this.#chunks.map((chunk) => (v2 ? entryV2(chunk) : entryV1(chunk)));
    const contexts = this.#contexts.map(({ compressed, uncompressed }) => {
      const bytes = Buffer.alloc(40);
      bytes.writeUInt32LE(compressed, 0);
      bytes.writeUInt32LE(uncompressed, 4);
      return bytes;
    });
    return Buffer.concat([...entries, ...contexts]);
  }

  #metaHeader(ci: WrittenBlob['ci'], features: number, tableSize: number): Buffer {
    const header = Buffer.alloc(4096);
    header.writeUInt32LE(MAGIC, 0);
    header.writeUInt32LE(features, 4);
    header.writeUInt32LE(ci.compressor, 8);
    header.writeUInt32LE(this.#chunks.length, 12);
    header.writeBigUInt64LE(BigInt(ci.offset), 16);
    header.writeBigUInt64LE(BigInt(ci.compressedSize), 24);
    header.writeBigUInt64LE(BigInt(ci.uncompressedSize), 32);
    if (this.#contexts.length > 0) {
      const size = 40 * this.#contexts.length;
      header.writeBigUInt64LE(BigInt(tableSize - size), 40);
      header.writeBigUInt64LE(BigInt(size), 48);
      header.writeUInt32LE(this.#contexts.length, 56);
    }
    header.writeUInt32LE(MAGIC, 4092);
    return header;
  }
}

function entryV1({ uncompressedOffset, uncompressedSize, compressedOffset, compressedSize }: WrittenChunk): Buffer {
  const bytes = Buffer.alloc(16);
  const [usize, csize] = [BigInt(uncompressedSize - 1), BigInt(compressedSize - 1)];
  bytes.writeBigUInt64LE(BigInt(uncompressedOffset) | ((usize & 0xfffffn) << 44n) | ((usize >> 20n) << 8n), 0);
  bytes.writeBigUInt64LE(BigInt(compressedOffset) | ((csize & 0xfffffn) << 44n) | ((csize >> 20n) << 40n), 8);
  return bytes;
}

function entryV2(chunk: WrittenChunk): Buffer {
  const bytes = Buffer.alloc(24);
  const flags = (chunk.isCompressed ? 1n : 0n) | (chunk.batch === undefined ? 0n : 4n);
  const size = BigInt(chunk.uncompressedSize - 1);
  bytes.writeBigUInt64LE(BigInt(chunk.uncompressedOffset / 4096) | (size << 32n) | (flags << 56n), 0);
  bytes.writeBigUInt64LE(BigInt(chunk.compressedOffset) | (BigInt(chunk.compressedSize) << 40n), 8);
  const { context, offset } = chunk.batch ?? { context: 0, offset: 0 };
  bytes.writeBigUInt64LE((BigInt(context) << 32n) | BigInt(offset), 16);
  return bytes;
}

function tocEntry(name: string, flags: number, content: Uint8Array, offset: number, size: number): Buffer {
  const entry = Buffer.alloc(128);
  entry.writeUInt32LE(flags, 0);
  entry.write(name, 8, 'latin1');
  createHash('sha256').update(content).digest().copy(entry, 24);
  entry.writeBigUInt64LE(BigInt(offset), 56);
  entry.writeBigUInt64LE(BigInt(size), 64);
  entry.writeBigUInt64LE(BigInt(content.byteLength), 72);
  return entry;
}

function tarHeader(name: string, size: number): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0, 'latin1');
  header.write('0000644\0', 100);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.write('        ', 148);
  header.write('0', 156);
  header.write('ustar  \0', 257, 'latin1');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

/** A chunk digest. */
export function digestOf(bytes: Uint8Array, digester: RafsOptions['digester']): Uint8Array {
  return digester === 'blake3' ? blake3(Buffer.from(bytes)) : createHash('sha256').update(bytes).digest();
}

/** LZ4 blocks are bare: the library's size in front is cut off. */
export function compress(bytes: Uint8Array, codec: RafsOptions['compressor']): Uint8Array {
  switch (codec) {
    case 'none':
      return bytes;
    case 'gzip':
      return gzipSync(bytes);
    case 'zstd':
      return zstdCompressSync(bytes);
    case 'lz4_block':
      return compressSync(Buffer.from(bytes)).subarray(4);
  }
}
