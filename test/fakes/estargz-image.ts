import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { sha256 } from '../../src/core/digest.ts';
import type { LayerDescriptor } from '../../src/image/layer-reader.ts';
import { TOC_DIGEST_ANNOTATION } from '../../src/image/readers/estargz.ts';

/** A TOC entry as JSON; any shape, since tests write bad ones. */
export type RawEntry = Record<string, unknown>;

/** A blob with the descriptor that pins its TOC. */
export interface EstargzImage {
  readonly bytes: Uint8Array;
  readonly descriptor: LayerDescriptor;
  readonly tocOffset: number;
}

/** Appends gzip members and remembers where each starts: what a TOC entry's `offset` names. */
export class MemberWriter {
  readonly #parts: Uint8Array[] = [];
  size = 0;

  constructor() {
    // The first member of a real layer is a tar header, so no data starts at 0.
    this.add(Buffer.alloc(512, 1));
  }

  /** Offset of a new member that decodes to `bytes`. */
  add(bytes: Uint8Array): number {
    return this.addRaw(gzipSync(bytes));
  }

  addRaw(bytes: Uint8Array): number {
    const offset = this.size;
    this.#parts.push(bytes);
    this.size += bytes.byteLength;
    return offset;
  }

  /** A `reg` entry whose only chunk is a member of its own, padded and followed as in a tar. */
  file(name: string, content: Uint8Array, fields: RawEntry = {}): RawEntry {
    const offset = this.add(Buffer.concat([content, Buffer.alloc(512 - (content.byteLength % 512) + 512)]));
    return { name, type: 'reg', size: content.byteLength, offset, chunkDigest: sha256(content), ...fields };
  }

  bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

/** An eStargz blob of these members whose TOC has these entries. */
export function estargzImage(entries: readonly RawEntry[], members = new MemberWriter()): EstargzImage {
  return estargzWithJson(Buffer.from(JSON.stringify({ version: 1, entries })), members);
}

/** The same for TOC text that may be anything. */
export function estargzWithJson(json: Uint8Array, members = new MemberWriter()): EstargzImage {
  const padding = Buffer.alloc((512 - (json.byteLength % 512)) % 512);
  const toc = gzipSync(Buffer.concat([tarHeader('stargz.index.json', json.byteLength), json, padding]));
  return estargzWithToc(toc, `sha256:${createHash('sha256').update(json).digest('hex')}`, members);
}

/** The same for a TOC member that may be anything. */
export function estargzWithToc(toc: Uint8Array, tocDigest: string, members = new MemberWriter()): EstargzImage {
  const tocOffset = members.addRaw(toc);
  members.addRaw(estargzFooter(tocOffset));
  const bytes = members.bytes();
  const descriptor = {
    digest: sha256(bytes),
    size: bytes.byteLength,
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    annotations: { [TOC_DIGEST_ANNOTATION]: tocDigest },
  };
  return { bytes, descriptor, tocOffset };
}

/** The 51-byte footer. */
export function estargzFooter(tocOffset: number): Buffer {
  const field = `SG\x16\0${tocOffset.toString(16).padStart(16, '0')}STARGZ`;
  return emptyMember(field);
}

/** An empty gzip member with this extra field, one byte per char. */
export function emptyMember(field: string): Buffer {
  const header = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, field.length & 0xff, field.length >> 8]);
  return Buffer.concat([header, Buffer.from(field, 'latin1'), Buffer.from([1, 0, 0, 0xff, 0xff]), Buffer.alloc(8)]);
}

/** A ustar header of a regular file (or of `type`). */
export function tarHeader(name: string, size: number, type = '0'): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0, 'latin1');
  header.write('0000644\0', 100);
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.write('        ', 148);
  header.write(type, 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}
