import { zstdCompressSync } from 'node:zlib';
import { ShoalError } from '../../../errors.ts';
import { encodeWindows } from '../../pass/windows.ts';
import { BinaryReader } from './binary.ts';
import type { BlobMeta, RafsContexts } from './blob-index.ts';
import { invalidRafs } from './model.ts';

const CONTEXT_BYTES = 40;
/** A dictionary is the whole window of deflate, or nothing. */
const WINDOW_BYTES = 32 * 1024;

/** Where the bytes of a chunk of a `tar.gz` come from. */
export interface ZranExtent {
  readonly extentOffset: number;
  readonly extentLength: number;
  readonly codec: 'deflate';
  readonly innerOffset: number;
  readonly decodedLength: number;
  readonly checkpoint: { readonly bits: number; readonly window: number | undefined };
}

/** Turns zran contexts (formats §2.5) into extents that start at a checkpoint, and collects their windows. */
export class ZranExtents {
  readonly #meta: BlobMeta;
  readonly #contexts: RafsContexts;
  readonly #reader: BinaryReader;
  readonly #blobSize: number;
  readonly #windows: Uint8Array[] = [];
  readonly #windowOf = new Map<number, number>();

  /** `blobSize`: length of the `tar.gz`, which the last contexts may pass. */
  constructor(meta: BlobMeta, { blobSize }: { blobSize: number }) {
    this.#blobSize = blobSize;
    if (meta.contexts?.kind !== 'zran') throw invalidRafs('a blob of a tar.gz without contexts');
    this.#meta = meta;
    this.#contexts = meta.contexts;
    this.#reader = new BinaryReader(meta.contexts.bytes, 'zran contexts');
  }

  /** The extent of the chunk with this number in its blob. */
  of(chunk: number, length: number): ZranExtent {
    const number = this.#meta.context[chunk];
    const innerOffset = this.#meta.innerOffset[chunk];
    if (number === undefined || innerOffset === undefined || number >= this.#contexts.count) {
      throw invalidRafs(`chunk ${chunk} is in no context`);
    }
    const at = number * CONTEXT_BYTES;
    const [inOffset, inLength, outLength] = [
      this.#reader.u64(at),
      this.#reader.u32(at + 24),
      this.#reader.u32(at + 28),
    ];
    const bits = this.#reader.u8(at + 37);
    if (innerOffset + length > outLength) throw invalidRafs(`chunk ${chunk} passes the end of its context`);
    if (bits > 7 || (bits > 0 && inOffset === 0)) throw invalidRafs(`context ${number} starts at bit ${bits}`);
    const first = bits > 0 ? 1 : 0;
    return {
      extentOffset: inOffset - first,
      extentLength: Math.min(inLength + first, this.#blobSize - inOffset + first),
      codec: 'deflate',
      innerOffset,
      decodedLength: innerOffset + length,
      checkpoint: { bits, window: this.#window(number, at) },
    };
  }

  /** The windows of all extents, to be kept beside the table. */
  get windows(): Uint8Array | undefined {
    return this.#windows.length === 0 ? undefined : encodeWindows(this.#windows);
  }

  #window(number: number, at: number): number | undefined {
    const size = this.#reader.u32(at + 32);
    if (size === 0) return undefined;
    if (size !== WINDOW_BYTES) {
      throw new ShoalError('UNSUPPORTED_LAYER', `a Nydus zran context has a dictionary of ${size} bytes`);
    }
    const known = this.#windowOf.get(number);
    if (known !== undefined) return known;
    const dictionaryAt = this.#contexts.count * CONTEXT_BYTES + this.#reader.u64(at + 16);
    const row = this.#windows.push(zstdCompressSync(this.#reader.slice(dictionaryAt, size))) - 1;
    this.#windowOf.set(number, row);
    return row;
  }
}
