import { hash } from 'node:crypto';
import type { ByteString } from '../../../src/image/layer-tree.ts';
import { type TarEntry, TarParser } from '../../../src/image/tar/parser.ts';
import { checkpointsOf } from './checkpoints.ts';
import { type FlatFields, flatBuffer } from './flat-writer.ts';

/** A span as the ztoc is to have it: compressed range [start, end). */
interface Span {
  readonly start: number;
  readonly end: number;
}

/** How a ztoc is made, and what is to be wrong with it. */
export interface ZtocOptions {
  /** Output between checkpoints, bytes; SOCI's own default is 4 MiB. */
  readonly spanBytes?: number;
  /** Leaves the first checkpoint out, as the format's first version does. */
  readonly firstVersion?: boolean;
  /** Changes the entries' fields (schema numbers) before they are written. */
  readonly entries?: (entries: FlatFields[]) => FlatFields[];
  readonly checkpoints?: (blob: Buffer) => Buffer;
  readonly digests?: (digests: string[]) => string[];
  /** Fields of the root, in place of the right ones. */
  readonly root?: FlatFields;
  readonly algorithm?: number;
}

const SPAN_BYTES = 4 * 1024 * 1024;
const WINDOW_BYTES = 32 * 1024;

/** A ztoc for a layer of `tar.gz` or plain `tar`, by the facts of the format: no package has SOCI's own tools. */
export function ztocOf(layer: Uint8Array, options: ZtocOptions = {}): Buffer {
  const isGzip = layer[0] === 0x1f && layer[1] === 0x8b;
  const spanBytes = options.spanBytes ?? SPAN_BYTES;
  const toc = tocReader();
  const cut = isGzip
    ? gzipCut(layer, spanBytes, { firstVersion: options.firstVersion === true, onTar: toc.write })
    : tarCut(layer, spanBytes, toc.write);
  const digests = cut.spans.map(({ start, end }) => `sha256:${hash('sha256', layer.subarray(start, end), 'hex')}`);
  const { entries, size } = toc.end();
  return flatBuffer({
    0: { string: '0.9' },
    1: { string: 'the tests of shoal' },
    2: { int64: layer.byteLength },
    3: { int64: size },
    4: { table: { 0: { tables: options.entries?.(entries) ?? entries } } },
    5: {
      table: {
        0: { int8: options.algorithm ?? (isGzip ? 1 : 2) },
        1: { int32: cut.spans.length - 1 },
        2: { strings: options.digests?.(digests) ?? digests },
        3: { bytes: options.checkpoints?.(cut.checkpoints) ?? cut.checkpoints },
      },
    },
    ...options.root,
  });
}

type OnTar = (bytes: Uint8Array) => void;

function gzipCut(layer: Uint8Array, spanBytes: number, init: { firstVersion: boolean; onTar: OnTar }) {
  const points = checkpointsOf(layer, spanBytes, init.onTar);
  const head = Buffer.alloc(12);
  head.writeInt32LE(points.length, 0);
  head.writeBigInt64LE(BigInt(spanBytes), 4);
  const written = points.slice(init.firstVersion ? 1 : 0).map(({ at, out, bits, window }) => {
    const point = Buffer.alloc(17 + WINDOW_BYTES);
    point.writeBigInt64LE(BigInt(at), 0);
    point.writeBigInt64LE(BigInt(out), 8);
    point.writeUInt8(bits, 16);
    point.set(window, 17);
    return point;
  });
  const spans = points.map(({ at, bits }, index): Span => {
    return { start: bits === 0 ? at : at - 1, end: points[index + 1]?.at ?? layer.byteLength };
  });
  return { checkpoints: Buffer.concat([head, ...written]), spans };
}

function tarCut(layer: Uint8Array, spanBytes: number, onTar: OnTar) {
  onTar(layer);
  const checkpoints = Buffer.alloc(20);
  checkpoints.writeInt32LE(2, 0);
  checkpoints.writeBigInt64LE(BigInt(spanBytes), 4);
  checkpoints.writeBigInt64LE(BigInt(layer.byteLength), 12);
  const spans = Array.from({ length: Math.ceil(layer.byteLength / spanBytes) }, (_, index): Span => {
    return { start: index * spanBytes, end: Math.min((index + 1) * spanBytes, layer.byteLength) };
  });
  return { checkpoints, spans };
}

const TYPES: Readonly<Record<string, string>> = { file: 'reg' };

/** Collects the entries of a tar that streams by. */
function tocReader(): { write: OnTar; end(): { entries: FlatFields[]; size: number } } {
  const entries: FlatFields[] = [];
  let size = 1024;
  const parser = new TarParser({
    entry(entry) {
      entries.push(fieldsOf(entry));
      size = Math.max(size, entry.dataOffset + entry.dataLength);
    },
    data() {},
  });
  return {
    write: (bytes) => parser.write(bytes),
    end() {
      parser.end();
      return { entries, size };
    },
  };
}

/** The fields as Go's tar reader would have filled them. */
function fieldsOf(entry: TarEntry): FlatFields {
  const pax = [...(entry.xattrs ?? [])].map(([name, value]): FlatFields => {
    return { 0: { string: raw(`SCHILY.xattr.${name}` as ByteString) }, 1: { string: value } };
  });
  if (entry.pieces !== undefined) pax.push({ 0: { string: 'GNU.sparse.major' }, 1: { string: '1' } });
  return {
    0: { string: raw(entry.path) },
    1: { string: TYPES[entry.type] ?? entry.type },
    2: { int64: entry.dataOffset },
    3: { int64: entry.size },
    4: { string: raw(entry.linkName) },
    5: { int64: entry.mode },
    6: { int32: entry.uid | 0 },
    7: { int32: entry.gid | 0 },
    8: { string: '' },
    9: { string: '' },
    10: { string: timeOf(entry) },
    11: { int64: entry.devMajor },
    12: { int64: entry.devMinor },
    13: { tables: pax },
  };
}

/** RFC 3339 with nanoseconds, in the zone of whoever ran the tool. */
function timeOf({ mtimeSec, mtimeNsec }: TarEntry): string {
  const local = new Date((mtimeSec + 5.5 * 3600) * 1000).toISOString().slice(0, 19);
  const fraction = mtimeNsec === 0 ? '' : `.${String(mtimeNsec).padStart(9, '0').replace(/0+$/, '')}`;
  return `${local}${fraction}+05:30`;
}

function raw(text: ByteString): Uint8Array {
  return Buffer.from(text, 'latin1');
}
