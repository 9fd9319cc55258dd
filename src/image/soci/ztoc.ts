import { parseDigest } from '../../core/digest.ts';
import { ShoalError } from '../../errors.ts';
import { type ByteString, byteStringOf } from '../layer-tree.ts';
import { FlatBuffer, type FlatTable } from './flatbuffer.ts';
import { gzipSpans, type Span, tarSpans } from './spans.ts';

/** One entry of the layer's tar, as Go's archive/tar read it. Names are bytes. */
export interface ZtocEntry {
  readonly name: ByteString;
  readonly type: string;
  /** Where its data starts in the tar. */
  readonly offset: number;
  readonly size: number;
  readonly linkName: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modTime: string;
  readonly devMajor: number;
  readonly devMinor: number;
  /** The entry's pax records. */
  readonly pax: readonly (readonly [key: ByteString, value: ByteString])[];
}

/** The table of contents of a layer that stays as it is (SOCI, `ztoc.fbs`): its entries, and where decoding can start. */
export interface Ztoc {
  readonly compressedSize: number;
  readonly uncompressedSize: number;
  readonly packing: 'tar.gz' | 'tar';
  readonly spans: readonly Span[];
  /** sha256 of the compressed bytes of each span. */
  readonly spanDigests: readonly Uint8Array[];
  /** The first checkpoint is not written but implied: right after a gzip header of 10 bytes. */
  readonly impliesStart: boolean;
  /** In the order of the tar. Parses as it goes. */
  entries(): Generator<ZtocEntry>;
}

/** Fields by their number in the schema. */
const ZTOC = { compressedSize: 2, uncompressedSize: 3, toc: 4, compressionInfo: 5 } as const;
const INFO = { algorithm: 0, maxSpanId: 1, spanDigests: 2, checkpoints: 3 } as const;
const TOC = { metadata: 0 } as const;
const FILE = {
  name: 0,
  type: 1,
  offset: 2,
  size: 3,
  linkName: 4,
  mode: 5,
  uid: 6,
  gid: 7,
  modTime: 10,
  devMajor: 11,
  devMinor: 12,
  pax: 13,
} as const;
const PAX = { key: 0, value: 1 } as const;
const GZIP = 1;
const UNCOMPRESSED = 2;

/**
 * Reads a ztoc. Throws INVALID_LAYER when it contradicts itself, UNSUPPORTED_LAYER for a compression it does not know.
 * Time and memory are bounded by its length; what it says of the layer is for the caller to believe.
 */
export function parseZtoc(bytes: Uint8Array): Ztoc {
  const buffer = new FlatBuffer(bytes);
  const root = buffer.root();
  const compressedSize = sizeOf(root.int64(ZTOC.compressedSize));
  const uncompressedSize = sizeOf(root.int64(ZTOC.uncompressedSize));
  const info = root.table(ZTOC.compressionInfo);
  const toc = root.table(ZTOC.toc);
  if (info === undefined || toc === undefined) throw invalid('lacks its contents');
  const algorithm = info.int8(INFO.algorithm, GZIP);
  if (algorithm !== GZIP && algorithm !== UNCOMPRESSED) {
    throw new ShoalError('UNSUPPORTED_LAYER', `a ztoc for compression ${algorithm}, only gzip and none are known`);
  }
  const cut = algorithm === GZIP ? gzipSpans : tarSpans;
  const { spans, impliesStart } = cut(info.bytes(INFO.checkpoints), compressedSize);
  const spanDigests: Uint8Array[] = [];
  for (const at of info.references(INFO.spanDigests)) spanDigests.push(digestOf(buffer.vectorAt(at, 1)));
  if (spanDigests.length !== spans.length || info.int32(INFO.maxSpanId) !== spans.length - 1) {
    throw invalid(`has ${spans.length} spans, and digests of ${spanDigests.length}`);
  }
  return {
    ...{ compressedSize, uncompressedSize, spans, spanDigests, impliesStart },
    packing: algorithm === GZIP ? 'tar.gz' : 'tar',
    *entries() {
      for (const at of toc.references(TOC.metadata)) yield entryOf(buffer, buffer.tableAt(at));
    },
  };
}

function entryOf(buffer: FlatBuffer, table: FlatTable): ZtocEntry {
  const pax: [ByteString, ByteString][] = [];
  for (const at of table.references(FILE.pax)) {
    const record = buffer.tableAt(at);
    pax.push([byteStringOf(record.bytes(PAX.key)), byteStringOf(record.bytes(PAX.value))]);
  }
  return {
    name: byteStringOf(table.bytes(FILE.name)),
    type: table.bytes(FILE.type).toString('latin1', 0, 16),
    offset: table.int64(FILE.offset),
    size: table.int64(FILE.size),
    linkName: byteStringOf(table.bytes(FILE.linkName)),
    mode: table.int64(FILE.mode),
    uid: table.uint32(FILE.uid),
    gid: table.uint32(FILE.gid),
    modTime: table.bytes(FILE.modTime).toString('latin1', 0, 64),
    devMajor: table.int64(FILE.devMajor),
    devMinor: table.int64(FILE.devMinor),
    pax,
  };
}

function digestOf(text: Buffer): Uint8Array {
  const digest = parseDigest(text.toString('latin1', 0, 100));
  if (!digest.startsWith('sha256:')) throw invalid('has span digests that are not sha256');
  return Buffer.from(digest.slice('sha256:'.length), 'hex');
}

function sizeOf(value: number): number {
  if (value <= 0) throw invalid(`has a size of ${value}`);
  return value;
}

function invalid(why: string): ShoalError {
  return new ShoalError('INVALID_LAYER', `a ztoc ${why}`);
}
