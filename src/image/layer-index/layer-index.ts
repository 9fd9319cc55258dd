import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import type { ChunkTable } from '../../core/chunk-table.ts';
import { decodeChunkTable, encodeChunkTable } from '../../core/chunk-table-codec.ts';
import { type Digest, parseDigest } from '../../core/digest.ts';
import { hasCode, ShoalError } from '../../errors.ts';
import { edgesByDevice } from '../file-edges.ts';
import { impliesDirs } from '../layer-tree.ts';
import type { Packing } from '../pass/layer-pass.ts';
import { checkWindows } from '../pass/windows.ts';
import { decodeTree } from '../tree-codec.ts';
import { checkIndexTree } from './check-tree.ts';

/** All that a pass over a layer found, in a form that can be kept and sent: with it, the layer is read lazily. */
export interface LayerIndex {
  /** Digest of the layer as the registry names it. */
  readonly layer: Digest;
  readonly diffId: Digest;
  readonly packing: Packing;
  /** As `encodeTree` makes it. */
  readonly tree: Uint8Array;
  readonly chunks: ChunkTable;
  /** As `encodeWindows` makes them; undefined when no chunk needs one. */
  readonly windows: Uint8Array | undefined;
}

/** An index, and what its tree says. */
export interface DecodedIndex extends LayerIndex {
  readonly impliesDirs: boolean;
  /** Blocks of the device at which large files begin or end. */
  readonly edges: Uint32Array;
}

/** Media type of the bytes, as an OCI artifact has them. */
export const LAYER_INDEX_TYPE = 'application/vnd.shoal.layer-index.v1';

const MAGIC = 0x58494853; // "SHIX"
const VERSION = 1;
const HEADER_BYTES = 24;
const PACKINGS: readonly Packing[] = ['tar', 'tar.gz', 'tar.zst'];
/** The index of a layer; one of 16 GiB full of small files has some 100 MiB. */
export const MAX_INDEX_BYTES = 256 * 1024 * 1024;
/** What the tree and the table may unpack to: some five million entries or chunks. */
const MAX_SECTION_BYTES = 256 * 1024 * 1024;
const MAX_NAMES_BYTES = 4096;
/** Compression of the tree and the table, zstd: 19 saves a tenth more and takes twenty times as long. */
const LEVEL = 6;

/** The index as bytes: header (magic, version, length of each section), names, tree, table, windows. Little-endian. */
export function encodeLayerIndex(index: LayerIndex): Uint8Array {
  const names = Buffer.from(JSON.stringify({ layer: index.layer, diffId: index.diffId, packing: index.packing }));
  const options = { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } };
  const sections = [
    names,
    zstdCompressSync(index.tree, options),
    zstdCompressSync(encodeChunkTable(index.chunks), options),
    index.windows ?? new Uint8Array(0),
  ];
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt32LE(MAGIC, 0);
  header.writeUInt32LE(VERSION, 4);
  for (const [at, section] of sections.entries()) header.writeUInt32LE(section.byteLength, 8 + 4 * at);
  return Buffer.concat([header, ...sections]);
}

/**
 * Reads what `encodeLayerIndex` made and checks that its parts make sense, also together: every file's data is in chunks,
 * every window is there. That its digests are those of the layer is for the caller to know. Throws INVALID_LAYER.
 */
export function decodeLayerIndex(bytes: Uint8Array): DecodedIndex {
  try {
    return decode(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (error) {
    if (hasCode(error, 'INVALID_LAYER')) throw error;
    throw new ShoalError('INVALID_LAYER', `a layer index cannot be used: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

function decode(bytes: Buffer): DecodedIndex {
  if (bytes.byteLength > MAX_INDEX_BYTES) throw invalid(`has ${bytes.byteLength} bytes`);
  if (bytes.byteLength < HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC) throw invalid('is not one');
  if (bytes.readUInt32LE(4) !== VERSION) throw invalid(`has version ${bytes.readUInt32LE(4)}`);
  let at = HEADER_BYTES;
  const [names, packedTree, packedTable, windows] = [8, 12, 16, 20].map((field) => {
    const start = at;
    at += bytes.readUInt32LE(field);
    return bytes.subarray(start, at);
  }) as [Buffer, Buffer, Buffer, Buffer];
  if (at !== bytes.byteLength) throw invalid('is cut short');
  const { layer, diffId, packing } = namesOf(names);
  const tree = unpack(packedTree);
  const chunks = decodeChunkTable(unpack(packedTable));
  if (!chunks.shareable) throw invalid('has chunks without digests');
  if (chunks.columns.skew !== undefined) throw invalid('has chunks that share blocks');
  const decodedTree = decodeTree(tree);
  checkIndexTree(decodedTree, chunks);
  const windowCount = countWindows(chunks);
  if (windowCount > 0) checkWindows(windows, windowCount);
  return {
    layer,
    diffId,
    packing,
    tree,
    chunks,
    windows: windowCount > 0 ? Uint8Array.from(windows) : undefined,
    impliesDirs: impliesDirs(decodedTree),
    edges: edgesByDevice(decodedTree)[0] ?? new Uint32Array(0),
  };
}

function namesOf(bytes: Buffer): Pick<LayerIndex, 'layer' | 'diffId' | 'packing'> {
  if (bytes.byteLength > MAX_NAMES_BYTES) throw invalid('has long names');
  const fields = Object(JSON.parse(bytes.toString('utf8'))) as Record<string, unknown>;
  const packing = PACKINGS.find((known) => known === fields.packing);
  if (packing === undefined) throw invalid('is of an unknown packing');
  return { layer: parseDigest(fields.layer), diffId: parseDigest(fields.diffId), packing };
}

function unpack(bytes: Buffer): Uint8Array {
  return zstdDecompressSync(bytes, { maxOutputLength: MAX_SECTION_BYTES });
}

/** Rows the table names; they are numbered from 0. */
function countWindows(chunks: ChunkTable): number {
  let count = 0;
  for (const { checkpoint } of chunks.columns.extents) count = Math.max(count, (checkpoint?.window ?? -1) + 1);
  return count;
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a layer index ${why}`);
}
