import { ShoalError } from '../../errors.ts';
import { showPath } from '../entry-rules.ts';
import { type ByteString, byteString } from '../layer-tree.ts';
import { type ScannedValue, scanJson } from './json-scanner.ts';

/** The only TOC version there is. */
const TOC_VERSION = 1;
/** One entry as JSON: paths with every byte escaped and base64 of all xattrs a tree accepts stay below this. */
const MAX_ENTRY_JSON_BYTES = 1024 * 1024;

const TYPES = ['dir', 'reg', 'symlink', 'hardlink', 'char', 'block', 'fifo', 'chunk'] as const;
const TYPE_NAMES: ReadonlySet<unknown> = new Set(TYPES);

/** What kind of TOC entry this is; `chunk` continues the `reg` before it. */
export type TocEntryType = (typeof TYPES)[number];

/** One TOC entry, every field checked for its shape; what the JSON leaves out is 0, '' or undefined. */
export interface TocEntry {
  readonly type: TocEntryType;
  readonly name: ByteString;
  readonly linkName: ByteString;
  /** Permission bits. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly xattrs: Map<ByteString, Uint8Array> | undefined;
  readonly size: number;
  /** Where the gzip member starts in the blob. */
  readonly offset: number;
  readonly innerOffset: number;
  /** End of the entry's data in the blob; zstd:chunked only. */
  readonly endOffset: number;
  readonly chunkOffset: number;
  readonly chunkSize: number;
  /** The chunk is a hole; zstd:chunked only. */
  readonly zeros: boolean;
  /** Unchecked text. */
  readonly digest: string;
  /** Unchecked text. */
  readonly chunkDigest: string;
}

/**
 * Hands every entry of a TOC (stargz-snapshotter docs/estargz.md#toc) to `onEntry` in order. Yields to other work
 * now and then. Throws INVALID_LAYER naming the entry, or UNSUPPORTED_LAYER for another version.
 */
export async function parseToc(
  json: Uint8Array,
  onEntry: (entry: TocEntry) => void,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  let version: unknown;
  await scanJson(json, {
    arrayKey: 'entries',
    maxElementBytes: MAX_ENTRY_JSON_BYTES,
    signal,
    onElement: (element, index) => onEntry(new FieldReader(element, index).entry()),
    onMember: (key, member) => {
      if (key === 'version') version = member.value;
    },
  });
  if (version !== TOC_VERSION) {
    throw new ShoalError('UNSUPPORTED_LAYER', `TOC version ${JSON.stringify(version)}, expected ${TOC_VERSION}`);
  }
}

/** Reads the fields of one entry. As in Go's decoder, null means absent. */
class FieldReader {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #decoded: boolean;
  readonly #index: number;

  constructor(element: ScannedValue, index: number) {
    const { value, decoded } = element;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new ShoalError('INVALID_LAYER', `TOC entry ${index} is not an object`);
    }
    this.#fields = value as Record<string, unknown>;
    this.#decoded = decoded;
    this.#index = index;
  }

  entry(): TocEntry {
    const type = this.#fields.type;
    if (!TYPE_NAMES.has(type)) throw this.#bad('type');
    const mtime = this.#mtime();
    return {
      type: type as TocEntryType,
      name: this.#bytes(this.#text('name')),
      linkName: this.#bytes(this.#text('linkName')),
      mode: this.#uint('mode') % 0o10000,
      uid: this.#uint('uid'),
      gid: this.#uint('gid'),
      mtimeSec: mtime.sec,
      mtimeNsec: mtime.nsec,
      devMajor: this.#uint('devMajor'),
      devMinor: this.#uint('devMinor'),
      xattrs: this.#xattrs(),
      size: this.#uint('size'),
      offset: this.#uint('offset'),
      innerOffset: this.#uint('innerOffset'),
      endOffset: this.#uint('endOffset'),
      chunkOffset: this.#uint('chunkOffset'),
      chunkSize: this.#uint('chunkSize'),
      zeros: this.#zeros(),
      digest: this.#text('digest'),
      chunkDigest: this.#text('chunkDigest'),
    };
  }

  #text(field: string): string {
    const value = this.#fields[field];
    if (value === undefined || value === null) return '';
    if (typeof value !== 'string') throw this.#bad(field);
    return value;
  }

  #uint(field: string): number {
    const value = this.#fields[field];
    if (value === undefined || value === null) return 0;
    if (!Number.isSafeInteger(value) || (value as number) < 0) throw this.#bad(field);
    return value as number;
  }

  #zeros(): boolean {
    const type = this.#text('chunkType');
    if (type !== '' && type !== 'zeros') throw this.#bad('chunkType');
    return type === 'zeros';
  }

  #mtime(): Mtime {
    const text = this.#text('modtime');
    const mtime = text === '' ? EPOCH : parseRfc3339(text);
    if (mtime === undefined) throw this.#bad('modtime');
    return mtime;
  }

  #xattrs(): Map<ByteString, Uint8Array> | undefined {
    const value = this.#fields.xattrs;
    if (value === undefined || value === null) return undefined;
    if (typeof value !== 'object' || Array.isArray(value)) throw this.#bad('xattrs');
    const xattrs = new Map<ByteString, Uint8Array>();
    for (const [name, coded] of Object.entries(value)) {
      if (typeof coded !== 'string' || coded.length % 4 !== 0 || !BASE64.test(coded)) throw this.#bad('xattrs');
      xattrs.set(this.#bytes(name), Buffer.from(coded, 'base64'));
    }
    return xattrs;
  }

  #bytes(text: string): ByteString {
    return this.#decoded ? byteString(text) : (text as ByteString);
  }

  #bad(field: string): ShoalError {
    const value = JSON.stringify(this.#fields[field])?.slice(0, 80) ?? 'missing';
    const name = this.#fields.name;
    const about = typeof name === 'string' ? ` ${showPath(this.#bytes(name))}` : '';
    return new ShoalError('INVALID_LAYER', `TOC entry ${this.#index}${about}: bad ${field}: ${value}`);
  }
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;

interface Mtime {
  readonly sec: number;
  readonly nsec: number;
}

const EPOCH: Mtime = { sec: 0, nsec: 0 };

const RFC3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)$/;

function parseRfc3339(text: string): Mtime | undefined {
  const match = RFC3339.exec(text);
  if (match === null) return undefined;
  const ms = Date.parse(`${match[1]}${match[3]}`);
  if (Number.isNaN(ms)) return undefined;
  return { sec: ms / 1000, nsec: Number((match[2] ?? '').padEnd(9, '0')) };
}
