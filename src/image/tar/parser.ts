import { ShoalError } from '../../errors.ts';
import { showPath } from '../entry-rules.ts';
import type { ByteString } from '../layer-tree.ts';
import { parseTarHeader, TAR_BLOCK_BYTES, type TarHeader } from './header.ts';
import { type PaxRecords, parsePax, paxInteger, paxTime } from './pax.ts';
import { checkedPieces, DataSparseMap, OldSparseMap, paddingAfter, paxSparse, type SparsePiece } from './sparse.ts';

/** One entry of a tar, after everything that long names, pax headers and sparse maps say about it. */
export interface TarEntry {
  readonly type: 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo';
  readonly path: ByteString;
  /** Target of a link, else empty. */
  readonly linkName: ByteString;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly xattrs: Map<ByteString, Uint8Array> | undefined;
  /** Bytes of the file as it is read. */
  readonly size: number;
  /** Where its data starts in the tar. */
  readonly dataOffset: number;
  /** Bytes of data in the tar. */
  readonly dataLength: number;
  /** The file's pieces, which the data is made of end to end; undefined when the data is the file. */
  readonly pieces: readonly SparsePiece[] | undefined;
}

/** Told of what a tar holds, in order: an entry, then its data in pieces that are only valid during the call. */
export interface TarSink {
  entry(entry: TarEntry): void;
  data(bytes: Uint8Array): void;
}

/** Body of a pax or long-name header: all xattrs of an inode and its names stay below this. */
const MAX_META_BYTES = 1024 * 1024;
const XATTR_PREFIX = 'SCHILY.xattr.';
/** Types that carry no data, whatever their size field says. */
const HEADER_ONLY = new Set(['1', '2', '3', '4', '5', '6']);
const KINDS: Readonly<Record<string, TarEntry['type']>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'dir',
  '6': 'fifo',
};

type State = 'header' | 'meta' | 'old-map' | 'data-map' | 'data' | 'skip' | 'end';

/**
 * A tar as it streams by (POSIX pax, GNU, ustar), read the way Go's archive/tar reads it, because the tree must be the one
 * containerd unpacks: global pax headers are without effect, links have no data. Names stay bytes. Holds one header of at
 * most 1 MiB. Throws INVALID_LAYER, UNSUPPORTED_LAYER or TOO_LARGE; use it no more after a throw.
 */
export class TarParser {
  readonly #sink: TarSink;
  readonly #block = Buffer.alloc(TAR_BLOCK_BYTES);
  #filled = 0;
  #state: State = 'header';
  /** Bytes of the tar seen. */
  #at = 0;
  /** Bytes left of the data, and of what is to be skipped behind it. */
  #left = 0;
  #padding = 0;
  #zeroBlocks = 0;
  #meta = Buffer.alloc(0);
  #metaType = '';
  #metaFilled = 0;
  #longName: ByteString | undefined;
  #longLink: ByteString | undefined;
  #pax: PaxRecords = [];
  #header: TarHeader | undefined;
  #oldMap: OldSparseMap | undefined;
  #dataMap: DataSparseMap | undefined;
  #mapBytes = 0;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  /** The archive's end marker was seen: what follows is without meaning. */
  get ended(): boolean {
    return this.#state === 'end';
  }

  /** The next bytes of the tar. */
  write(bytes: Uint8Array): void {
    let at = 0;
    while (at < bytes.byteLength) {
      const taken = this.#take(at === 0 ? bytes : bytes.subarray(at));
      at += taken;
      this.#at += taken;
      this.#settle();
    }
  }

  /** No more bytes come. */
  end(): void {
    const whole = this.#state === 'end' || (this.#state === 'header' && this.#filled === 0);
    if (!whole || this.#longName !== undefined || this.#longLink !== undefined || this.#pax.length > 0) {
      throw new ShoalError('INVALID_LAYER', 'the tar ends in the middle of an entry');
    }
  }

  /** Consumes some of `bytes`; how many. */
  #take(bytes: Uint8Array): number {
    switch (this.#state) {
      case 'end':
        return bytes.byteLength;
      case 'data': {
        const part = bytes.byteLength > this.#left ? bytes.subarray(0, this.#left) : bytes;
        this.#left -= part.byteLength;
        this.#sink.data(part);
        return part.byteLength;
      }
      case 'skip': {
        const count = Math.min(bytes.byteLength, this.#padding);
        this.#padding -= count;
        return count;
      }
      case 'meta': {
        const count = Math.min(bytes.byteLength, this.#meta.byteLength - this.#metaFilled);
        this.#meta.set(bytes.subarray(0, count), this.#metaFilled);
        this.#metaFilled += count;
        return count;
      }
      default: {
        const count = Math.min(bytes.byteLength, TAR_BLOCK_BYTES - this.#filled);
        this.#block.set(bytes.subarray(0, count), this.#filled);
        this.#filled += count;
        return count;
      }
    }
  }

  /** Goes on to the next state when this one has all it waits for. */
  #settle(): void {
    switch (this.#state) {
      case 'end':
        return;
      case 'data':
        if (this.#left === 0) this.#state = this.#padding > 0 ? 'skip' : 'header';
        return;
      case 'skip':
        if (this.#padding === 0) this.#state = 'header';
        return;
      case 'meta':
        if (this.#metaFilled === this.#meta.byteLength) this.#endMeta();
        return;
      default:
        if (this.#filled < TAR_BLOCK_BYTES) return;
        this.#filled = 0;
        if (this.#state === 'header') this.#onHeader();
        else this.#onMapBlock();
    }
  }

  #onHeader(): void {
    const header = parseTarHeader(this.#block);
    if (header === undefined) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = 'end';
      return;
    }
    if (this.#zeroBlocks > 0) throw new ShoalError('INVALID_LAYER', 'the tar goes on after a block of zeros');
    if ('xgLK'.includes(header.type)) {
      this.#beginMeta(header);
      return;
    }
    this.#header = header;
    if (header.type === 'S') {
      if (!header.isGnu) throw new ShoalError('INVALID_LAYER', 'a sparse entry without a GNU header');
      this.#oldMap = new OldSparseMap(this.#block);
      if (this.#oldMap.more) this.#state = 'old-map';
      else this.#emit(this.#oldMap.pieces, this.#oldMap.realSize);
      return;
    }
    const sparse = paxSparse(this.#pax);
    if (sparse === undefined) this.#emit(undefined, undefined);
    else if (sparse.map !== 'in data') this.#emit(sparse.map, sparse.realSize);
    else {
      this.#dataMap = new DataSparseMap();
      this.#mapBytes = 0;
      this.#state = 'data-map';
    }
  }

  #onMapBlock(): void {
    if (this.#state === 'old-map') {
      const map = this.#oldMap as OldSparseMap;
      map.add(this.#block);
      if (!map.more) this.#emit(map.pieces, map.realSize);
      return;
    }
    this.#mapBytes += TAR_BLOCK_BYTES;
    if (this.#mapBytes > this.#sizeOf(this.#header as TarHeader)) {
      throw new ShoalError('INVALID_LAYER', 'a sparse map is longer than its entry');
    }
    const pieces = (this.#dataMap as DataSparseMap).add(this.#block);
    if (pieces !== undefined) this.#emit(pieces, paxSparse(this.#pax)?.realSize);
  }

  #beginMeta(header: TarHeader): void {
    if (header.size > MAX_META_BYTES) {
      throw new ShoalError('TOO_LARGE', `a tar header of ${header.size} bytes, allowed are ${MAX_META_BYTES}`);
    }
    this.#meta = Buffer.allocUnsafe(header.size);
    this.#metaFilled = 0;
    this.#metaType = header.type;
    this.#padding = paddingAfter(header.size);
    this.#state = 'meta';
    if (header.size === 0) this.#endMeta();
  }

  #endMeta(): void {
    const body = this.#meta;
    if (this.#metaType === 'x') this.#pax = parsePax(body);
    else if (this.#metaType !== 'g') {
      const end = body.indexOf(0);
      const name = body.toString('latin1', 0, end < 0 ? body.byteLength : end) as ByteString;
      if (this.#metaType === 'L') this.#longName = name;
      else this.#longLink = name;
    }
    this.#state = this.#padding > 0 ? 'skip' : 'header';
  }

  #sizeOf(header: TarHeader): number {
    const size = this.#pax.findLast(([key, value]) => key === 'size' && value !== '')?.[1];
    return size === undefined ? header.size : paxInteger('size', size);
  }

  /** Hands the entry over and waits for its data. */
  #emit(map: readonly SparsePiece[] | undefined, realSize: number | undefined): void {
    const header = this.#header as TarHeader;
    const size = HEADER_ONLY.has(header.type) ? 0 : this.#sizeOf(header);
    const dataLength = size - this.#mapBytes;
    const pieces = map === undefined ? undefined : checkedPieces(map, realSize as number, dataLength);
    const dataOffset = this.#at;
    const entry = this.#entryOf(header, { size: realSize ?? size, dataOffset, dataLength, pieces });
    this.#left = dataLength;
    this.#padding = paddingAfter(size);
    this.#longName = undefined;
    this.#longLink = undefined;
    this.#pax = [];
    this.#mapBytes = 0;
    this.#state = dataLength > 0 ? 'data' : this.#padding > 0 ? 'skip' : 'header';
    this.#sink.entry(entry);
  }

  #entryOf(header: TarHeader, data: Pick<TarEntry, 'size' | 'dataOffset' | 'dataLength' | 'pieces'>): TarEntry {
    const fields = fieldsOf(this.#pax);
    const field = (key: string): ByteString | undefined => fields.get(key as ByteString);
    const sparseName = data.pieces === undefined ? undefined : field('GNU.sparse.name');
    const path = this.#longName ?? sparseName ?? field('path') ?? header.name;
    let type = KINDS[header.type];
    if (type === undefined) {
      const what = `entry ${showPath(path)} is of tar type ${JSON.stringify(header.type)}`;
      throw new ShoalError('UNSUPPORTED_LAYER', what);
    }
    if (header.type === '\0' && path.endsWith('/')) type = 'dir';
    const mtime = field('mtime');
    const { sec, nsec } = mtime === undefined ? { sec: header.mtimeSec, nsec: 0 } : paxTime(mtime);
    const uid = field('uid');
    const gid = field('gid');
    return {
      ...data,
      type,
      path,
      linkName: this.#longLink ?? field('linkpath') ?? header.linkName,
      mode: header.mode & 0o7777,
      uid: uid === undefined ? header.uid : paxInteger('uid', uid),
      gid: gid === undefined ? header.gid : paxInteger('gid', gid),
      mtimeSec: sec,
      mtimeNsec: nsec,
      devMajor: header.devMajor,
      devMinor: header.devMinor,
      xattrs: xattrsOf(fields),
    };
  }
}

const NO_FIELDS: ReadonlyMap<ByteString, ByteString> = new Map();

/** What pax records say, the last of a name; most entries have none. */
function fieldsOf(pax: PaxRecords): ReadonlyMap<ByteString, ByteString> {
  if (pax.length === 0) return NO_FIELDS;
  return new Map(pax.filter(([key, value]) => value !== '' || key.startsWith(XATTR_PREFIX)));
}

function xattrsOf(fields: ReadonlyMap<ByteString, ByteString>): Map<ByteString, Uint8Array> | undefined {
  let xattrs: Map<ByteString, Uint8Array> | undefined;
  for (const [key, value] of fields) {
    if (!key.startsWith(XATTR_PREFIX)) continue;
    xattrs ??= new Map();
    xattrs.set(key.slice(XATTR_PREFIX.length) as ByteString, Buffer.from(value, 'latin1'));
  }
  return xattrs;
}
