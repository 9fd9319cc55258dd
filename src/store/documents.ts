import { mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Chunk } from '../core/chunk.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../core/digest.ts';
import { hasCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import { readFully } from './file-io.ts';
import { verifyChunk } from './verify-chunk.ts';

/** What an image is described by and that has a digest of its own: a manifest, a config, the index of a layer. */
export interface DocumentRecord {
  readonly digest: Digest;
  /** Bytes, > 0. */
  readonly length: number;
  /** The image it was first fetched for. */
  readonly image: string;
}

/** Documents on disk, so that neighbours can have them from here. Nothing is lost with one: it is fetched again. */
export interface DocumentStore {
  find(digest: Digest): DocumentRecord | undefined;
  /** Its bytes, hashed now; undefined, and forgotten, when they are wrong or gone. */
  read(digest: Digest): Promise<Chunk | undefined>;
  /** Keeps a document; the ones unused for longest make room. Never throws: without it others ask the registry. */
  put(chunk: Chunk, image: string): Promise<void>;
  all(): readonly DocumentRecord[];
}

const NAME = /^[0-9a-f]{64}$/;
/** A file begins with a line that says for which image it was fetched, padded to this length. */
const HEADER_BYTES = 1024;
const NEW = '.new';

/** Opens the folder, made when it is missing; `onGone` hears of documents that made room or turned out wrong. */
export async function openDocuments(
  components: { log: Logger; onGone?: (digests: readonly Digest[]) => void },
  init: { directory: string; maxBytes: number },
): Promise<DocumentStore> {
  const { directory } = init;
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const records = new Map<Digest, DocumentRecord>();
  for (const name of await readdir(directory)) {
    const record = NAME.test(name) ? await readHeader(directory, name) : undefined;
    if (record === undefined) await rm(join(directory, name), { force: true, recursive: true });
    else records.set(record.digest, record);
  }
  return new Folder(components, init, records);
}

class Folder implements DocumentStore {
  readonly #log: Logger;
  readonly #onGone: (digests: readonly Digest[]) => void;
  readonly #init: { directory: string; maxBytes: number };
  /** Used longest ago first. */
  readonly #records: Map<Digest, DocumentRecord>;
  readonly #writing = new Set<Digest>();
  #bytes: number;

  constructor(
    components: { log: Logger; onGone?: (digests: readonly Digest[]) => void },
    init: { directory: string; maxBytes: number },
    records: Map<Digest, DocumentRecord>,
  ) {
    this.#log = components.log;
    this.#onGone = components.onGone ?? (() => {});
    this.#init = init;
    this.#records = records;
    this.#bytes = [...records.values()].reduce((sum, { length }) => sum + length, 0);
  }

  find(digest: Digest): DocumentRecord | undefined {
    return this.#records.get(digest);
  }

  all(): readonly DocumentRecord[] {
    return [...this.#records.values()];
  }

  async read(digest: Digest): Promise<Chunk | undefined> {
    const record = this.#records.get(digest);
    if (record === undefined) return undefined;
    this.#records.delete(digest);
    this.#records.set(digest, record);
    try {
      await using file = await open(this.#pathOf(digest));
      const bytes = new Uint8Array(record.length);
      await readFully(file.fd, bytes, HEADER_BYTES);
      return await verifyChunk(record, bytes);
    } catch (error) {
      this.#log.warn('a document on disk is not what it was', { document: digest, why: String(error) });
      await this.#forget([digest]);
      return undefined;
    }
  }

  async put({ digest, bytes }: Chunk, image: string): Promise<void> {
    const { maxBytes } = this.#init;
    const header = Buffer.alloc(HEADER_BYTES, ' ');
    header[HEADER_BYTES - 1] = '\n'.charCodeAt(0);
    const written = header.write(JSON.stringify({ image }), 'utf8');
    const isFitting = written < HEADER_BYTES - 1 && bytes.byteLength <= maxBytes / 4 && bytes.byteLength > 0;
    const isKnown = this.#records.has(digest) || this.#writing.has(digest);
    if (isKnown || digestAlgorithm(digest) !== 'sha256' || !isFitting) return;
    this.#writing.add(digest);
    const path = this.#pathOf(digest);
    try {
      await using file = await open(`${path}${NEW}`, 'w', 0o600);
      await file.writev([header, bytes]);
      await rename(`${path}${NEW}`, path);
      this.#records.set(digest, { digest, length: bytes.byteLength, image });
      this.#bytes += bytes.byteLength;
      await this.#makeRoom();
    } catch (error) {
      this.#log.warn('a document cannot be kept', { document: digest, why: String(error) });
    } finally {
      this.#writing.delete(digest);
    }
  }

  async #makeRoom(): Promise<void> {
    const over: Digest[] = [];
    let left = this.#bytes;
    for (const { digest, length } of this.#records.values()) {
      if (left <= this.#init.maxBytes) break;
      over.push(digest);
      left -= length;
    }
    await this.#forget(over);
  }

  async #forget(digests: readonly Digest[]): Promise<void> {
    if (digests.length === 0) return;
    for (const digest of digests) {
      this.#bytes -= this.#records.get(digest)?.length ?? 0;
      this.#records.delete(digest);
    }
    this.#onGone(digests);
    for (const digest of digests) await rm(this.#pathOf(digest), { force: true }).catch(() => {});
  }

  #pathOf(digest: Digest): string {
    return join(this.#init.directory, digestHex(digest));
  }
}

/** What a file says of itself; its bytes are hashed when they are used. Undefined for what is no document. */
async function readHeader(directory: string, name: string): Promise<DocumentRecord | undefined> {
  try {
    await using file = await open(join(directory, name));
    const header = Buffer.alloc(HEADER_BYTES);
    await file.read(header, 0, HEADER_BYTES, 0);
    const { size } = await file.stat();
    const { image } = JSON.parse(header.toString('utf8')) as { image?: unknown };
    if (typeof image !== 'string' || size <= HEADER_BYTES) return undefined;
    return { digest: parseDigest(`sha256:${name}`), length: size - HEADER_BYTES, image };
  } catch (error) {
    if (error instanceof SyntaxError || hasCode(error, 'INVALID_DIGEST') || isGone(error)) return undefined;
    throw error;
  }
}

function isGone(error: unknown): boolean {
  return ['ENOENT', 'EISDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '');
}
