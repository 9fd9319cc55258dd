import type { Codec } from '../../../core/chunk-table.ts';
import type { DigestAlgorithm } from '../../../core/digest.ts';
import { ShoalError } from '../../../errors.ts';
import type { LayerTree } from '../../layer-tree.ts';

/** Compressors of RAFS by their number on disk. */
export const RAFS_CODECS: readonly Codec[] = ['none', 'lz4_block', 'gzip', 'zstd'];
/** Chunk digests of RAFS by their number on disk. */
export const RAFS_DIGESTS: readonly DigestAlgorithm[] = ['blake3', 'sha256'];

/** Blob features (formats §2.2). */
export const FEATURE = {
  aligned: 0x1,
  chunkInfoV2: 0x4,
  zran: 0x8,
  separate: 0x10,
  inlinedDigest: 0x20,
  tarfs: 0x40,
  batch: 0x80,
  encrypted: 0x100,
  external: 0x800,
  hasTarHeader: 0x10000000,
  hasToc: 0x20000000,
} as const;

/** What the bits that are known stand for; another one may change the layout. */
const KNOWN_FEATURES = 0xf0000fff;

/** A blob as the bootstrap describes it; offsets are in the registry blob, lengths in bytes. */
export interface RafsBlob {
  /** Lower-case hex of its sha256. */
  readonly id: string;
  readonly index: number;
  readonly codec: Codec;
  readonly algorithm: DigestAlgorithm;
  readonly features: number;
  /** sha256 of the table of contents with its tar header, and their length; length 0 when the blob has none. */
  readonly toc: { readonly length: number; readonly digest: Uint8Array };
  /** The compression context table, which its header of 4096 bytes follows. */
  readonly meta: {
    readonly codec: Codec;
    readonly offset: number;
    readonly length: number;
    readonly decodedLength: number;
  };
  /** sha256 and length of the blob that holds the table, for zran and separate blobs. */
  readonly metaBlob: { readonly digest: Uint8Array; readonly length: number };
}

/** Chunks of one blob, a column per property, in any order, possibly some of them several times. */
export interface RafsChunks {
  readonly count: number;
  /** Place on the device, a multiple of 4096. */
  readonly deviceOffset: Float64Array;
  readonly length: Uint32Array;
  readonly codedOffset: Float64Array;
  readonly codedLength: Uint32Array;
  readonly flags: Uint8Array;
  /** Number of the chunk in its blob. */
  readonly index: Uint32Array;
  /** 32 bytes each. */
  readonly digests: Uint8Array;
}

/** Chunk flags (formats §2.4, the bits of 2.5 mapped onto them). */
export const CHUNK = { compressed: 0x1, hole: 0x2, encrypted: 0x4, batch: 0x8, zran: 0x40 } as const;

/** A bootstrap taken apart. `chunks[i]`: what the bootstrap itself says of blob i's chunks, maybe nothing. */
export interface RafsBootstrap {
  readonly version: 5 | 6;
  readonly blobs: readonly RafsBlob[];
  readonly chunks: readonly (RafsChunks | undefined)[];
  /** Device numbers are blob indexes. */
  readonly tree: LayerTree;
}

/** Throws UNSUPPORTED_LAYER, naming it, when the blob needs something that shoal does not do. */
export function checkFeatures({ id, features }: Pick<RafsBlob, 'id' | 'features'>, cipher: number): void {
  const refuse = (what: string): never => {
    throw new ShoalError('UNSUPPORTED_LAYER', `Nydus blob ${id.slice(0, 12)} ${what}`);
  };
  if (cipher !== 0 || (features & FEATURE.encrypted) !== 0) refuse('is encrypted');
  if ((features & FEATURE.tarfs) !== 0) refuse('is of a tarfs image');
  if ((features & FEATURE.external) !== 0) refuse('lies in external storage');
  const unknown = (features & ~KNOWN_FEATURES) >>> 0;
  if (unknown !== 0) refuse(`has unknown features 0x${unknown.toString(16)}`);
}

/** INVALID_LAYER about a bootstrap. */
export function invalidRafs(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `RAFS bootstrap: ${why}`);
}

/** INVALID_LAYER unless it is a blob id: 64 hex digits. */
export function checkBlobId(text: string): string {
  if (!/^[0-9a-f]{64}$/.test(text)) throw invalidRafs(`blob id ${JSON.stringify(text.slice(0, 80))}`);
  return text;
}

/** The element of a list of names by its number on disk; throws UNSUPPORTED_LAYER for a number that is not known. */
export function named<T>(names: readonly T[], number: number, what: string): T {
  const name = names[number];
  if (name === undefined) throw new ShoalError('UNSUPPORTED_LAYER', `RAFS ${what} ${number} is not known`);
  return name;
}

/** Empty columns for `count` chunks. */
export function newChunks(count: number): RafsChunks {
  return {
    count,
    deviceOffset: new Float64Array(count),
    length: new Uint32Array(count),
    codedOffset: new Float64Array(count),
    codedLength: new Uint32Array(count),
    flags: new Uint8Array(count),
    index: new Uint32Array(count),
    digests: new Uint8Array(32 * count),
  };
}
