import { createHash } from 'node:crypto';
import { hasCode, ShoalError } from '../../../errors.ts';
import { decodeExtent } from '../../codec.ts';
import type { RangedBlob } from '../../layer-reader.ts';
import { BinaryReader } from './binary.ts';
import { CHUNK, FEATURE, invalidRafs, newChunks, type RafsBlob, type RafsChunks } from './model.ts';

/** Header of the compression context table, which follows the table. */
export const META_HEADER_BYTES = 4096;
const META_MAGIC = 0xb10bb10b;
const ENTRY_V1_BYTES = 16;
const ENTRY_V2_BYTES = 24;
const CONTEXT_BYTES = 40;
const TOC_ENTRY_BYTES = 128;
const TAR_HEADER_BYTES = 512;
/** TOC entries a blob may have; five names are known. */
const MAX_TOC_BYTES = 32 * TOC_ENTRY_BYTES + TAR_HEADER_BYTES;
/** Chunks of one blob: 2^24 are possible, which would take 1 GB. A million are 1 TiB in chunks of 1 MiB. */
const MAX_CHUNKS = 4_000_000;
/** Decoded context table, bytes: MAX_CHUNKS entries and as many contexts of zran, dictionaries included, as a 50 GiB layer has. */
const MAX_META_BYTES = 512 * 1024 * 1024;

/** Where a batch or zran chunk's bytes come from, by number. */
export interface RafsContexts {
  readonly kind: 'batch' | 'zran';
  readonly count: number;
  /** Contexts, 40 bytes each, and for zran the dictionaries behind them. */
  readonly bytes: Uint8Array;
}

/** The compression context table of a blob. */
export interface BlobMeta {
  /** Digests are zeros: they are elsewhere. */
  readonly chunks: RafsChunks;
  readonly contexts: RafsContexts | undefined;
  /** By chunk number: context, and byte in what it decodes to. */
  readonly context: Uint32Array;
  readonly innerOffset: Uint32Array;
}

/** What a blob says of itself. `verified`: its table of contents is the one the bootstrap names. */
export interface BlobIndex {
  readonly meta: BlobMeta;
  /** 32 bytes per chunk number, when the blob holds them and they are verified. */
  readonly digests: Uint8Array | undefined;
  readonly verified: boolean;
}

interface TocEntry {
  readonly name: string;
  readonly digest: Uint8Array;
  readonly offset: number;
  readonly length: number;
  readonly decodedLength: number;
  readonly flags: number;
}

interface ReadInit {
  readonly signal: AbortSignal;
}

/**
 * Reads the index that lies inside a RAFS blob (formats §2.5, §2.6): through its table of contents where it has one, and
 * everything is then verified, else where the bootstrap says. Throws INVALID_LAYER, TOO_LARGE or what the blob throws.
 */
export async function readBlobIndex(rafs: RafsBlob, blob: RangedBlob, init: ReadInit): Promise<BlobIndex> {
  const toc = await readToc(rafs, blob, init);
  if (toc === undefined) return { meta: await readMetaAt(rafs, blob, init), digests: undefined, verified: false };
  const part = async (name: string): Promise<Uint8Array | undefined> => {
    const entry = toc.find((each) => each.name === name);
    return entry === undefined ? undefined : await readPart(entry, blob, init);
  };
  const [table, header, digests] = [await part('blob.meta'), await part('blob.meta.header'), await part('blob.digest')];
  if (table === undefined || header === undefined) throw invalidRafs('the blob has no blob.meta');
  const meta = parseMeta(rafs, table, header);
  if (digests !== undefined && digests.byteLength < 32 * meta.chunks.count) {
    throw invalidRafs(`${digests.byteLength} bytes of digests for ${meta.chunks.count} chunks`);
  }
  return { meta, digests, verified: true };
}

/** The entries of the table of contents at the blob's end; undefined when the blob has none that can be verified. */
async function readToc(rafs: RafsBlob, blob: RangedBlob, { signal }: ReadInit): Promise<TocEntry[] | undefined> {
  const { length, digest } = rafs.toc;
  if ((rafs.features & FEATURE.hasToc) === 0 || length === 0) return undefined;
  if (length > MAX_TOC_BYTES || length <= TAR_HEADER_BYTES || (length - TAR_HEADER_BYTES) % TOC_ENTRY_BYTES !== 0) {
    throw invalidRafs(`a table of contents of ${length} bytes`);
  }
  if (length > blob.size) throw invalidRafs('the blob is shorter than its table of contents');
  const bytes = await blob.read(blob.size - length, length, { signal });
  if (!sameBytes(sha256Of(bytes), digest))
    throw invalidRafs('the table of contents is not the one the bootstrap names');
  const reader = new BinaryReader(bytes, 'table of contents');
  const entries: TocEntry[] = [];
  for (let at = 0; at < length - TAR_HEADER_BYTES; at += TOC_ENTRY_BYTES) {
    entries.push({
      flags: reader.u32(at),
      name: reader.text(at + 8, 16),
      digest: reader.slice(at + 24, 32),
      offset: reader.u64(at + 56),
      length: reader.u64(at + 64),
      decodedLength: reader.u64(at + 72),
    });
  }
  return entries;
}

/** One part of the blob, verified. */
async function readPart(entry: TocEntry, blob: RangedBlob, { signal }: ReadInit): Promise<Uint8Array> {
  const codec = ({ 1: 'none', 2: 'zstd', 4: 'lz4_block' } as const)[entry.flags];
  if (codec === undefined) {
    throw new ShoalError(
      'UNSUPPORTED_LAYER',
      `part ${entry.name} of a Nydus blob is coded by 0x${entry.flags.toString(16)}`,
    );
  }
  const bytes = await readCoded(entry, codec, blob, { signal });
  if (!sameBytes(sha256Of(bytes), entry.digest))
    throw invalidRafs(`part ${entry.name} of a blob does not match its digest`);
  return bytes;
}

async function readCoded(
  range: { readonly offset: number; readonly length: number; readonly decodedLength: number },
  codec: RafsBlob['codec'],
  blob: RangedBlob,
  { signal }: ReadInit,
): Promise<Uint8Array> {
  const { offset, length, decodedLength } = range;
  if (length > MAX_META_BYTES || decodedLength > MAX_META_BYTES) {
    throw new ShoalError('TOO_LARGE', `the index of a Nydus blob has ${Math.max(length, decodedLength)} bytes`);
  }
  if (offset + length > blob.size) throw invalidRafs(`the index of a blob would be at ${offset}, outside of it`);
  if (length === 0 || decodedLength === 0) return new Uint8Array();
  const coded = await blob.read(offset, length, { signal });
  if (codec === 'none' && length !== decodedLength) throw invalidRafs('the index of a blob has two lengths');
  try {
    return await decodeExtent(codec, coded, decodedLength, { signal });
  } catch (cause) {
    if (!hasCode(cause, 'CHUNK_CORRUPT')) throw cause;
    throw new ShoalError('INVALID_LAYER', `the index of a Nydus blob is damaged: ${cause.message}`, { cause });
  }
}

/** A blob without a table of contents: the bootstrap says where the context table is. */
async function readMetaAt(rafs: RafsBlob, blob: RangedBlob, { signal }: ReadInit): Promise<BlobMeta> {
  const { offset, length, decodedLength, codec } = rafs.meta;
  if (length === 0) throw invalidRafs('the blob has no context table');
  const headerAt = offset + length;
  if (headerAt + META_HEADER_BYTES > blob.size) throw invalidRafs(`a context table at ${offset}, outside of its blob`);
  const header = await blob.read(headerAt, META_HEADER_BYTES, { signal });
  return parseMeta(rafs, await readCoded({ offset, length, decodedLength }, codec, blob, { signal }), header);
}

/** Parses the context table and its header (formats §2.5). */
export function parseMeta(rafs: Pick<RafsBlob, 'features'>, table: Uint8Array, header: Uint8Array): BlobMeta {
  const head = new BinaryReader(header, 'blob meta header');
  if (head.size !== META_HEADER_BYTES || head.u32(0) !== META_MAGIC || head.u32(META_HEADER_BYTES - 4) !== META_MAGIC) {
    throw invalidRafs('the header of a context table has no magic');
  }
  const features = rafs.features;
  const isV2 = (features & FEATURE.chunkInfoV2) !== 0;
  const count = head.u32(12);
  if (count > MAX_CHUNKS)
    throw new ShoalError('TOO_LARGE', `a Nydus blob has ${count} chunks, allowed are ${MAX_CHUNKS}`);
  const entries = new BinaryReader(table, 'context table');
  entries.check(0, count * (isV2 ? ENTRY_V2_BYTES : ENTRY_V1_BYTES));
  const chunks = newChunks(count);
  const context = new Uint32Array(isV2 ? count : 0);
  const innerOffset = new Uint32Array(isV2 ? count : 0);
  for (let index = 0; index < count; index += 1) {
    chunks.index[index] = index;
    if (isV2) readV2(entries, index, chunks, { context, innerOffset });
    else readV1(entries, index, chunks);
  }
  return { chunks, context, innerOffset, contexts: parseContexts(features, head, table) };
}

function parseContexts(features: number, head: BinaryReader, table: Uint8Array): RafsContexts | undefined {
  const kind = (features & FEATURE.zran) !== 0 ? 'zran' : (features & FEATURE.batch) !== 0 ? 'batch' : undefined;
  if (kind === undefined) return undefined;
  const [offset, size, count] = [head.u64(40), head.u64(48), head.u32(56)];
  const bytes = new BinaryReader(table, 'contexts').slice(offset, size);
  if (count * CONTEXT_BYTES > size) throw invalidRafs(`${count} contexts in ${size} bytes`);
  return { kind, count, bytes };
}

function readV1(entries: BinaryReader, index: number, chunks: RafsChunks): void {
  const uncompressed = entries.big(index * ENTRY_V1_BYTES);
  const compressed = entries.big(index * ENTRY_V1_BYTES + 8);
  chunks.deviceOffset[index] = Number(uncompressed & 0xffffffff000n);
  // the size minus one: its low 20 bits on top, its high 4 below
  chunks.length[index] = Number((uncompressed >> 44n) | (((uncompressed >> 8n) & 0xfn) << 20n)) + 1;
  chunks.codedOffset[index] = Number(compressed & 0xffffffffffn);
  chunks.codedLength[index] = Number((compressed >> 44n) | (((compressed >> 40n) & 0xfn) << 20n)) + 1;
  chunks.flags[index] = chunks.length[index] === chunks.codedLength[index] ? 0 : CHUNK.compressed;
}

function readV2(
  entries: BinaryReader,
  index: number,
  chunks: RafsChunks,
  data: { context: Uint32Array; innerOffset: Uint32Array },
): void {
  const at = index * ENTRY_V2_BYTES;
  chunks.deviceOffset[index] = entries.u32(at) * 4096;
  const upper = entries.u32(at + 4);
  chunks.length[index] = (upper & 0xffffff) + 1;
  const flags = upper >>> 24;
  const compressed = entries.big(at + 8);
  chunks.codedOffset[index] = Number(compressed & 0xffffffffffn);
  chunks.codedLength[index] = Number(compressed >> 40n);
  data.innerOffset[index] = entries.u32(at + 16);
  data.context[index] = entries.u32(at + 20);
  chunks.flags[index] =
    ((flags & 1) !== 0 ? CHUNK.compressed : 0) |
    ((flags & 2) !== 0 ? CHUNK.zran : 0) |
    ((flags & 4) !== 0 ? CHUNK.batch : 0) |
    ((flags & 8) !== 0 ? CHUNK.encrypted : 0);
}

/** A batch context: what is fetched, and what that decodes to. */
export function batchContext(contexts: RafsContexts, number: number): { length: number; decodedLength: number } {
  if (contexts.kind !== 'batch' || number >= contexts.count) throw invalidRafs(`a chunk of batch ${number}`);
  const reader = new BinaryReader(contexts.bytes, 'batch contexts');
  return { length: reader.u32(number * CONTEXT_BYTES), decodedLength: reader.u32(number * CONTEXT_BYTES + 4) };
}

function sha256Of(bytes: Uint8Array): Uint8Array {
  return createHash('sha256').update(bytes).digest();
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
