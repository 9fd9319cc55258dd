import { createHash } from 'node:crypto';
import type { ChunkTable } from '../../core/chunk-table.ts';
import { type Digest, digestAlgorithm, parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import type { LayerTree } from '../layer-tree.ts';
import { TarParser } from '../tar/parser.ts';
import type { Obtained } from './chunk-rows.ts';
import { DeviceLayout, type DeviceOutput } from './device-layout.ts';
import { createGzipScanner } from './gzip-scanner.ts';
import type { PassScanner } from './scanner.ts';
import { createZstdScanner } from './zstd-scanner.ts';

/** How a layer is packed; the name of the format as shown to people. */
export type Packing = 'tar' | 'tar.gz' | 'tar.zst';

/** What one pass over a layer gives. */
export interface PassResult {
  readonly packing: Packing;
  readonly tree: LayerTree;
  readonly chunks: ChunkTable;
  /** Packed windows in the order the table counts them. */
  readonly windows: readonly Uint8Array[];
  /** Digest of the uncompressed layer, trailing bytes included. */
  readonly diffId: Digest;
}

/** Bytes that tell gzip from zstd from tar. */
const MAGIC_BYTES = 4;
const ZSTD_MAGIC = 0xfd2fb528;
/** The low 4 bits of a skippable frame's magic are free. */
const ZSTD_SKIPPABLE = 0x184d2a50;

/**
 * One pass over a layer, from its first byte to its last: digests, file tree, chunk table, checkpoints, and the device's
 * bytes to `output` as they pass. Nothing of it may be believed before `finish`, which throws INVALID_LAYER when the bytes
 * were not those of `digest`. Synchronous and without I/O of its own.
 */
export class LayerPass {
  readonly #digest: Digest;
  readonly #blobHash;
  readonly #diffHash = createHash('sha256');
  readonly #layout: DeviceLayout;
  readonly #parser: TarParser;
  #scanner: PassScanner | undefined;
  #packing: Packing = 'tar';
  #started = false;
  #held = Buffer.alloc(0);
  #size = 0;

  constructor(components: { output: DeviceOutput }, init: { digest: Digest; maxEntries?: number }) {
    const algorithm = digestAlgorithm(init.digest);
    if (algorithm === 'blake3') throw new ShoalError('UNSUPPORTED_LAYER', 'layers must be named by sha256 or sha512');
    this.#digest = init.digest;
    this.#blobHash = createHash(algorithm);
    this.#layout = new DeviceLayout(
      components.output,
      init.maxEntries === undefined ? {} : { maxEntries: init.maxEntries },
    );
    this.#parser = new TarParser(this.#layout);
  }

  /** The next bytes of the layer, memory of their own. Throws INVALID_LAYER, UNSUPPORTED_LAYER, TOO_LARGE. */
  write(bytes: Uint8Array): void {
    this.#blobHash.update(bytes);
    this.#size += bytes.byteLength;
    if (this.#started) {
      this.#decode(bytes);
      return;
    }
    const all = Buffer.allocUnsafeSlow(this.#held.byteLength + bytes.byteLength);
    all.set(this.#held);
    all.set(bytes, this.#held.byteLength);
    if (all.byteLength < MAGIC_BYTES) this.#held = all;
    else this.#begin(all);
  }

  finish(): PassResult {
    const found = parseDigest(`${digestAlgorithm(this.#digest)}:${this.#blobHash.digest('hex')}`);
    if (found !== this.#digest) {
      throw new ShoalError('INVALID_LAYER', `the layer's bytes have digest ${found}, expected ${this.#digest}`);
    }
    if (!this.#started) this.#begin(this.#held);
    this.#scanner?.end();
    this.#parser.end();
    const { tree } = this.#layout.finish();
    const scanner = this.#scanner;
    const codec = this.#packing === 'tar.zst' ? ('zstd' as const) : ('deflate' as const);
    const obtained: Obtained = scanner === undefined ? { codec: 'none' } : { codec, scanner };
    return {
      packing: this.#packing,
      tree,
      ...this.#layout.chunks.table(this.#size, obtained),
      diffId: parseDigest(`sha256:${this.#diffHash.digest('hex')}`),
    };
  }

  /** Frees what the decoder holds. Idempotent. */
  close(): void {
    this.#scanner?.close();
  }

  #begin(bytes: Buffer): void {
    this.#started = true;
    const onOutput = (tar: Uint8Array): void => this.#onTar(tar);
    if (bytes[0] === 0x1f && bytes[1] === 0x8b) {
      this.#packing = 'tar.gz';
      this.#scanner = createGzipScanner({ onOutput, chunkStart: () => this.#layout.chunkStart });
    } else if (bytes.byteLength >= MAGIC_BYTES && isZstd(bytes.readUInt32LE(0))) {
      this.#packing = 'tar.zst';
      this.#scanner = createZstdScanner({ onOutput });
    }
    this.#decode(bytes);
  }

  #decode(bytes: Uint8Array): void {
    if (this.#scanner === undefined) this.#onTar(bytes);
    else this.#scanner.write(bytes);
  }

  #onTar(tar: Uint8Array): void {
    this.#diffHash.update(tar);
    if (!this.#parser.ended) this.#parser.write(tar);
  }
}

function isZstd(magic: number): boolean {
  return magic === ZSTD_MAGIC || (magic & ~0xf) >>> 0 === ZSTD_SKIPPABLE;
}
