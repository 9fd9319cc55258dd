import { zstdCompressSync } from 'node:zlib';
import { sha256 } from '../../src/core/digest.ts';
import { TOC_DIGEST_ANNOTATION } from '../../src/image/readers/estargz.ts';
import type { RawEntry } from './estargz-image.ts';
import type { FixtureLayer } from './oci-layout.ts';

const PREFIX = 'io.github.containers.zstd-chunked.';

/** Appends zstd frames and remembers where each starts. */
export class FrameWriter {
  readonly #parts: Uint8Array[] = [];
  size = 0;

  constructor() {
    this.add(Buffer.alloc(512, 1));
  }

  /** Offset of a new frame that decodes to `bytes`. */
  add(bytes: Uint8Array): number {
    return this.addRaw(zstdCompressSync(bytes));
  }

  addRaw(bytes: Uint8Array): number {
    const offset = this.size;
    this.#parts.push(bytes);
    this.size += bytes.byteLength;
    return offset;
  }

  /** A `reg` entry with one frame of its own, and what follows when its content is cut at these places. */
  file(name: string, content: Uint8Array, cuts: readonly number[] = []): RawEntry[] {
    const starts = [0, ...cuts];
    const chunks = starts.map((start, index) => {
      const bytes = content.subarray(start, starts[index + 1] ?? content.byteLength);
      return { offset: this.add(bytes), chunkOffset: start, chunkSize: bytes.byteLength, chunkDigest: sha256(bytes) };
    });
    const [first, ...others] = chunks;
    const head = { name, type: 'reg', size: content.byteLength, digest: sha256(content), endOffset: this.size };
    return [{ ...head, ...first }, ...others.map((chunk) => ({ name, type: 'chunk', ...chunk }))];
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** A layer as containers/storage writes it today, of these frames and with these TOC entries. */
export function zstdchunkedLayer(entries: readonly RawEntry[], frames = new FrameWriter()): FixtureLayer {
  return zstdchunkedWithJson(Buffer.from(JSON.stringify({ version: 1, entries })), frames);
}

/** The same for TOC text that may be anything. */
export function zstdchunkedWithJson(json: Uint8Array, frames = new FrameWriter()): FixtureLayer {
  const toc = zstdCompressSync(json);
  const offset = frames.size + 8;
  frames.addRaw(skippable(toc));
  const split = zstdCompressSync(Buffer.from('tar-split'));
  const splitOffset = frames.size + 8;
  frames.addRaw(skippable(split));
  const fields = [offset, toc.byteLength, json.byteLength, 1, splitOffset, split.byteLength, 9];
  frames.addRaw(footer(fields, 'GNUlInUx'));
  return layerOf(frames.bytes(), {
    [`${PREFIX}manifest-checksum`]: sha256(toc),
    [`${PREFIX}manifest-position`]: `${offset}:${toc.byteLength}:${json.byteLength}:1`,
    [`${PREFIX}tarsplit-position`]: `${splitOffset}:${split.byteLength}:9`,
  });
}

/** A layer as stargz tools write it: chunks of one size, frames that end with tar padding, a landmark, no end offsets. */
export function stargzStyleLayer(init: { file: Uint8Array; chunkBytes: number }): FixtureLayer {
  const frames = new FrameWriter();
  const landmark = Buffer.from([0x0f]);
  const entries: RawEntry[] = [
    {
      name: '.no.prefetch.landmark',
      type: 'reg',
      size: 1,
      offset: frames.add(Buffer.concat([landmark, Buffer.alloc(511 + 512)])),
      digest: sha256(landmark),
    },
    { name: 'dir/', type: 'dir', mode: 0o755 },
  ];
  for (let at = 0; at < init.file.byteLength; at += init.chunkBytes) {
    const bytes = init.file.subarray(at, at + init.chunkBytes);
    const isLast = at + init.chunkBytes >= init.file.byteLength;
    const padding = isLast ? Buffer.alloc(1024) : Buffer.alloc(0);
    const chunk = {
      offset: frames.add(Buffer.concat([bytes, padding])),
      chunkOffset: at,
      chunkSize: bytes.byteLength,
      chunkDigest: sha256(bytes),
    };
    const head = { type: 'reg', size: init.file.byteLength, digest: sha256(init.file) };
    entries.push({ name: 'dir/file', ...(at === 0 ? head : { type: 'chunk' }), ...chunk });
  }
  const json = Buffer.from(JSON.stringify({ version: 1, entries }));
  const toc = zstdCompressSync(json);
  const offset = frames.size + 8;
  frames.addRaw(skippable(toc));
  frames.addRaw(footer([offset, toc.byteLength, json.byteLength, 1], 'GnUlInUx'));
  return layerOf(frames.bytes(), { [TOC_DIGEST_ANNOTATION]: sha256(json) });
}

/** Zeros. */
export function zeros(bytes: number): Buffer {
  return Buffer.alloc(bytes);
}

function layerOf(bytes: Uint8Array, annotations: Record<string, string>): FixtureLayer {
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+zstd';
  return { bytes, descriptor: { digest: sha256(bytes), size: bytes.byteLength, mediaType, annotations } };
}

function skippable(payload: Uint8Array): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt32LE(0x184d2a50, 0);
  header.writeUInt32LE(payload.byteLength, 4);
  return Buffer.concat([header, payload]);
}

function footer(fields: readonly number[], magic: string): Buffer {
  const payload = Buffer.alloc(8 * fields.length);
  for (const [index, field] of fields.entries()) payload.writeBigUInt64LE(BigInt(field), 8 * index);
  return skippable(Buffer.concat([payload, Buffer.from(magic, 'latin1')]));
}
