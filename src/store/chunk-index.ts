import type { Digest } from '../core/digest.ts';
import { digestBytes } from '../core/digest.ts';

/** The part of an abstract-level database (encodings `view`) that the index uses. */
export interface IndexDb {
  getMany(keys: Uint8Array[]): Promise<(Uint8Array | undefined)[]>;
  batch(operations: IndexOperation[]): Promise<void>;
}

/** One write of a batch. */
export type IndexOperation =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array };

/** Where a chunk with some digest lies: a row of a blob's table. A hint, to be checked against table and presence. */
export interface ChunkPlace {
  /** First 16 bytes of the blob's digest, hex. */
  readonly blobPrefix: string;
  readonly row: number;
}

/**
 * Digest → one place that held it last. Only chunks that are present are written, in the flusher's batches, so making
 * a blob of 100,000 chunks costs the index nothing; 16-byte prefixes keep a record at 36 bytes and a false match is
 * found by comparing the whole digest in the table.
 */
export interface ChunkIndex {
  /** Lookups of the same turn become one read of the database. */
  find(digest: Digest): Promise<ChunkPlace | undefined>;
  add(blob: Digest, chunks: Iterable<{ readonly digest: Uint8Array; readonly row: number }>): Promise<void>;
  /** Forgets the places of this blob among these digests. */
  remove(blob: Digest, digests: Iterable<Uint8Array>): Promise<void>;
}

const PREFIX_BYTES = 16;
/** Records per database call: some 100 KiB. */
const BATCH_RECORDS = 2_048;

/** First 16 bytes of a blob's digest, hex, as a ChunkPlace names it. */
export function blobPrefix(blob: Digest): string {
  return Buffer.from(digestBytes(blob).subarray(0, PREFIX_BYTES)).toString('hex');
}

export function createChunkIndex(db: IndexDb): ChunkIndex {
  let waiting: { key: Uint8Array; resolve: (place?: ChunkPlace) => void; reject: (error: unknown) => void }[] = [];

  async function lookUp(): Promise<void> {
    // Gather what the current turn still asks.
    await Promise.resolve();
    const batch = waiting;
    waiting = [];
    try {
      const values = await db.getMany(batch.map(({ key }) => key));
      for (const [index, { resolve }] of batch.entries()) resolve(decodePlace(values[index]));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  return {
    find(digest) {
      return new Promise((resolve, reject) => {
        waiting.push({ key: digestBytes(digest).slice(0, PREFIX_BYTES), resolve, reject });
        if (waiting.length === 1) void lookUp();
      });
    },
    async add(blob, chunks) {
      const prefix = digestBytes(blob).subarray(0, PREFIX_BYTES);
      let operations: IndexOperation[] = [];
      for (const { digest, row } of chunks) {
        const value = new Uint8Array(PREFIX_BYTES + 4);
        value.set(prefix);
        new DataView(value.buffer).setUint32(PREFIX_BYTES, row, true);
        operations.push({ type: 'put', key: digest.subarray(0, PREFIX_BYTES), value });
        if (operations.length < BATCH_RECORDS) continue;
        await db.batch(operations);
        operations = [];
      }
      if (operations.length > 0) await db.batch(operations);
    },
    async remove(blob, digests) {
      const prefix = blobPrefix(blob);
      for (const keys of inGroups(digests)) {
        const values = await db.getMany(keys);
        const mine = keys.filter((_, index) => decodePlace(values[index])?.blobPrefix === prefix);
        if (mine.length > 0) await db.batch(mine.map((key) => ({ type: 'del', key })));
      }
    },
  };
}

function* inGroups(digests: Iterable<Uint8Array>): Generator<Uint8Array[]> {
  let keys: Uint8Array[] = [];
  for (const digest of digests) {
    keys.push(digest.subarray(0, PREFIX_BYTES));
    if (keys.length < BATCH_RECORDS) continue;
    yield keys;
    keys = [];
  }
  if (keys.length > 0) yield keys;
}

function decodePlace(value: Uint8Array | undefined): ChunkPlace | undefined {
  if (value?.byteLength !== PREFIX_BYTES + 4) return undefined;
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const prefix = Buffer.from(value.subarray(0, PREFIX_BYTES)).toString('hex');
  return { blobPrefix: prefix, row: view.getUint32(PREFIX_BYTES, true) };
}
