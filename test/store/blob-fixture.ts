import { randomBytes } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import type { Chunk } from '../../src/core/chunk.ts';
import type { ChunkTable } from '../../src/core/chunk-table.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import type { OnBytes, RangedBlob, ReadOptions } from '../../src/image/layer-reader.ts';
import type { IndexDb, IndexOperation } from '../../src/store/chunk-index.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';

/** A layer made for a test: its table, its plain chunks and its compressed bytes. */
export interface TestBlob {
  readonly digest: Digest;
  readonly table: ChunkTable;
  readonly chunks: readonly Uint8Array[];
  readonly compressed: Uint8Array;
}

/** Builds a blob of these chunks, each a gzip member of its own or `perExtent` of them in one. */
export function testBlob(chunks: readonly Uint8Array[], { perExtent = 1, gapBlocks = 0 } = {}): TestBlob {
  const parts: Uint8Array[] = [];
  const rows: Parameters<ChunkTableBuilder['add']>[0][] = [];
  let blobOffset = 0;
  let deviceOffset = 0;
  for (let first = 0; first < chunks.length; first += perExtent) {
    const group = chunks.slice(first, first + perExtent);
    const member = gzipSync(Buffer.concat(group), { level: 1 });
    let innerOffset = 0;
    for (const chunk of group) {
      rows.push({
        deviceOffset,
        length: chunk.byteLength,
        digest: sha256(chunk),
        extentOffset: blobOffset,
        extentLength: member.byteLength,
        codec: 'gzip',
        innerOffset,
      });
      innerOffset += chunk.byteLength;
      deviceOffset += (Math.ceil(chunk.byteLength / 4096) + gapBlocks) * 4096;
    }
    parts.push(member);
    blobOffset += member.byteLength;
  }
  const compressed = Buffer.concat(parts);
  const builder = new ChunkTableBuilder({ compressedSize: compressed.byteLength });
  for (const row of rows) builder.add(row);
  return { digest: sha256(compressed), table: builder.build(), chunks, compressed };
}

/** `count` random chunks of `bytes` bytes. */
export function randomChunks(count: number, bytes: number): Uint8Array[] {
  return Array.from({ length: count }, () => randomBytes(bytes));
}

/** The blob's chunks, verified. */
export function verified(blob: TestBlob): Promise<Chunk[]> {
  return Promise.all(
    blob.chunks.map((bytes, index) =>
      verifyChunk({ digest: blob.table.row(index).digest, length: bytes.length }, bytes),
    ),
  );
}

/** Serves a blob from memory; `before` can delay, fail or count, `alter` can lie. */
export class FakeRangedBlob implements RangedBlob {
  readonly digest: Digest;
  readonly size: number;
  readonly reads: { offset: number; length: number }[] = [];
  before: (signal: AbortSignal) => Promise<void> = async () => {};
  alter: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes;
  /** Hands bytes out before the read ends, as a connection does. */
  arrive: (bytes: Uint8Array, onBytes: OnBytes) => Promise<void> = async () => {};
  readonly #bytes: Uint8Array;

  constructor(blob: Pick<TestBlob, 'digest' | 'compressed'>) {
    this.digest = blob.digest;
    this.size = blob.compressed.byteLength;
    this.#bytes = blob.compressed;
  }

  async read(offset: number, length: number, { signal, onBytes }: ReadOptions): Promise<Uint8Array> {
    this.reads.push({ offset, length });
    const bytes = Uint8Array.prototype.slice.call(this.#bytes, offset, offset + length);
    if (onBytes !== undefined) await this.arrive(bytes, onBytes);
    await this.before(signal);
    signal.throwIfAborted();
    // A copy: the bytes are the caller's (a Buffer's own slice is a view).
    return this.alter(bytes);
  }
}

/** An index database in memory. */
export class MemoryIndexDb implements IndexDb {
  readonly records = new Map<string, Uint8Array>();
  calls = 0;

  async getMany(keys: Uint8Array[]): Promise<(Uint8Array | undefined)[]> {
    this.calls += 1;
    return keys.map((key) => this.records.get(Buffer.from(key).toString('hex')));
  }

  async batch(operations: IndexOperation[]): Promise<void> {
    for (const operation of operations) {
      const key = Buffer.from(operation.key).toString('hex');
      if (operation.type === 'del') this.records.delete(key);
      else this.records.set(key, Uint8Array.from(operation.value));
    }
  }
}
