import { mkdir, mkdtemp, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import type { ChunkTable } from '../core/chunk-table.ts';
import { type Digest, digestAlgorithm, digestHex, parseDigest } from '../core/digest.ts';
import { oneAtATime } from '../core/turns.ts';
import { ShoalError } from '../errors.ts';
import type { cloneRange } from '../kernel/reflink.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice, BlobInfo, BlobSource } from './blob-device.ts';
import { encodeInfo, FILES, KINDS, type LoadInit, loadBlob, newBlobFiles, type OpenBlob } from './blob-files.ts';
import { blobPrefix, createChunkIndex, type IndexDb } from './chunk-index.ts';
import type { ChunkStore } from './chunk-store.ts';
import { createReflink } from './reflink.ts';
import { assertPrivateDir, readSealed, readSealedRange, storeIo, syncDir, writeSealed } from './sealed-file.ts';

/** What `create` keeps of a blob. */
export interface NewBlob {
  readonly chunks: ChunkTable;
  /** The encoded layer tree, opaque here. */
  readonly tree: Uint8Array;
  readonly info: BlobInfo;
  /** Windows of the table's checkpoints, opaque here. */
  readonly windows?: Uint8Array;
  /** Blocks at which large files begin or end on the device, ascending (`fileEdges`): readahead keeps to them. */
  readonly edges?: Uint32Array | undefined;
  /** A data file that holds every chunk of the table. */
  readonly staged?: StagedData;
}

/** A data file in the making, in a directory that becomes the blob's own. */
export interface StagedData {
  readonly directory: string;
  /** Open for writing. */
  readonly fd: number;
  /** Closes the file, and deletes it unless a blob was made of it. Idempotent. */
  discard(): Promise<void>;
}

/** What the store works with, and whom it tells. */
export interface BlobStoreComponents {
  readonly log: Logger;
  readonly clock: Clock;
  /** These chunks of the layer are on disk for good from now on, or again. */
  readonly onHeld?: (blob: Digest, digests: readonly Digest[]) => void;
  /** These chunks of the layer are not here any more. */
  readonly onGone?: (blob: Digest, digests: readonly Digest[]) => void;
}

/** All layers this node knows, each a directory `blobs/<hex>` below the root (design §9). */
export interface BlobStore {
  /** Connects the cascade that devices fill from; before that `fill` throws FAILED_PRECONDITION. */
  connect(source: ChunkStore): void;
  /** Makes the blob's files, all or none, and opens it; one that exists only gets the new sources. Throws STORE_IO. */
  create(blob: Digest, content: NewBlob): Promise<BlobDevice>;
  /** An empty data file, for a blob whose bytes are here before its table is. Throws STORE_IO. */
  stage(): Promise<StagedData>;
  /** Up to `length` bytes of the blob's windows, fewer at their end. Throws NOT_FOUND or STORE_IO; what is read is not checked. */
  readWindows(blob: Digest, offset: number, length: number): Promise<Uint8Array>;
  /** The blob's device, undefined when there is none or its state was beyond use (logged as STATE_CORRUPT, removed). */
  open(blob: Digest): Promise<BlobDevice | undefined>;
  /** The device if it is open now. */
  opened(blob: Digest): BlobDevice | undefined;
  /** Devices that are open now. */
  devices(): readonly BlobDevice[];
  list(): Promise<readonly Digest[]>;
  /** The encoded tree. Throws NOT_FOUND or STATE_CORRUPT. */
  readTree(blob: Digest): Promise<Uint8Array>;
  /** Remembers one more repository that has the blob. Throws NOT_FOUND. */
  addSource(blob: Digest, source: BlobSource): Promise<void>;
  /** Withdraws the blob's chunks from the index, closes its device and deletes its files. Nothing may be mounted on it. */
  remove(blob: Digest): Promise<void>;
  /** A device and row that, by the index, hold this chunk; the caller checks. */
  holder(digest: Digest): Promise<{ readonly device: BlobDevice; readonly row: number } | undefined>;
  /** Makes everything durable and closes all devices. Idempotent. */
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Opens the store. `root` must be a 0700 directory of ours (CONFIG_INVALID otherwise); `db` keeps the chunk index.
 * Chunks are verified when they are written; `verifyOnOpen` says how much is hashed again when a blob is opened: `none`,
 * `sample` (default: 8 chunks, finds a data file that was swapped, emptied or restored from elsewhere in a few ms, and
 * then checks everything), or `full` (finds each flipped bit, ~1 s per GiB and core).
 */
export async function openBlobStore(
  components: BlobStoreComponents,
  init: { root: string; db: IndexDb; clone?: typeof cloneRange } & Pick<
    LoadInit,
    'verifyOnOpen' | 'openData' | 'readahead' | 'flushAfterMs' | 'flushAfterBytes' | 'sync'
  >,
): Promise<BlobStore> {
  const dir = join(init.root, 'blobs');
  try {
    await assertPrivateDir(init.root);
    await mkdir(dir, { mode: 0o700, recursive: true });
    await assertPrivateDir(dir);
    for (const name of await readdir(dir)) {
      if (name.startsWith(TEMPORARY)) await rm(join(dir, name), { recursive: true, force: true });
    }
  } catch (error) {
    throw storeIo(error, `cannot open the blob store in ${init.root}`);
  }
  return new DirectoryStore(components, { ...init, dir });
}

/** Prefix of directories that are being made or deleted; left over after a crash, removed at start. */
const TEMPORARY = '.tmp-';

class DirectoryStore implements BlobStore {
  readonly #components: BlobStoreComponents;
  readonly #init: LoadInit & { dir: string };
  readonly #index;
  readonly #open = new Map<Digest, OpenBlob>();
  /** Creating, opening and removing one blob must not overlap. */
  readonly #turns = new Map<Digest, Promise<unknown>>();
  readonly #limit = oneAtATime();
  readonly #reflink;
  #prefixes: Map<string, Digest> | undefined;
  #source: ChunkStore | undefined;
  #nextId = 1;
  #closed = false;

  constructor(
    components: BlobStoreComponents,
    init: LoadInit & { dir: string; db: IndexDb; clone?: typeof cloneRange },
  ) {
    this.#components = components;
    this.#init = init;
    this.#index = createChunkIndex(init.db);
    this.#reflink = createReflink(init.clone);
  }

  connect(source: ChunkStore): void {
    this.#source = source;
  }

  create(blob: Digest, content: NewBlob): Promise<BlobDevice> {
    return this.#inTurn(blob, async () => {
      const known = await this.#load(blob);
      if (known !== undefined) {
        for (const source of content.info.sources) await this.#mergeSource(blob, known, source);
        return known.device;
      }
      await this.#writeNew(blob, content);
      const made = await this.#load(blob);
      if (made === undefined) throw new ShoalError('STATE_CORRUPT', `layer ${blob} cannot be read back`);
      if (content.staged !== undefined) made.device.adopt();
      return made.device;
    });
  }

  async stage(): Promise<StagedData> {
    try {
      const directory = await mkdtemp(join(this.#init.dir, TEMPORARY));
      const file = await open(join(directory, FILES.data), 'wx', 0o600);
      let discarded: Promise<void> | undefined;
      const discard = async (): Promise<void> => {
        await file.close();
        await rm(directory, { recursive: true, force: true });
      };
      return {
        directory,
        fd: file.fd,
        discard: () => {
          discarded ??= discard();
          return discarded;
        },
      };
    } catch (error) {
      throw storeIo(error, 'cannot make a data file');
    }
  }

  async readWindows(blob: Digest, offset: number, length: number): Promise<Uint8Array> {
    return await readSealedRange(join(this.#path(blob), FILES.windows), offset, length);
  }

  open(blob: Digest): Promise<BlobDevice | undefined> {
    const known = this.#open.get(blob);
    if (known !== undefined && !this.#turns.has(blob)) return Promise.resolve(known.device);
    return this.#inTurn(blob, async () => (await this.#load(blob))?.device);
  }

  opened(blob: Digest): BlobDevice | undefined {
    return this.#open.get(blob)?.device;
  }

  devices(): readonly BlobDevice[] {
    return [...this.#open.values()].map(({ device }) => device);
  }

  async list(): Promise<readonly Digest[]> {
    const names = await readdir(this.#init.dir);
    // A registry names blobs by sha256 or sha512; the length tells which.
    return names.filter((name) => HEX_NAME.test(name)).map((name) => parseDigest(`sha${name.length * 4}:${name}`));
  }

  async readTree(blob: Digest): Promise<Uint8Array> {
    const tree = await readSealed(join(this.#path(blob), FILES.tree), KINDS.tree);
    if (tree === undefined) throw new ShoalError('NOT_FOUND', `layer ${blob} is not in the store`, { layer: blob });
    return tree;
  }

  addSource(blob: Digest, source: BlobSource): Promise<void> {
    return this.#inTurn(blob, async () => {
      const known = await this.#load(blob);
      if (known === undefined) throw new ShoalError('NOT_FOUND', `layer ${blob} is not in the store`, { layer: blob });
      await this.#mergeSource(blob, known, source);
    });
  }

  remove(blob: Digest): Promise<void> {
    return this.#inTurn(blob, async () => {
      const known = await this.#load(blob);
      if (known === undefined) return;
      await known.device.flush();
      await this.#index.remove(blob, digestsOf(known.device));
      const { device } = known;
      this.#components.onGone?.(
        blob,
        rowsOf(device).map((row) => device.table.row(row).digest),
      );
      this.#forget(blob);
      await known.device.close();
      await this.#discard(blob);
    });
  }

  async holder(digest: Digest): Promise<{ device: BlobDevice; row: number } | undefined> {
    const place = await this.#index.find(digest);
    if (place === undefined) return undefined;
    this.#prefixes ??= new Map((await this.list()).map((blob) => [blobPrefix(blob), blob]));
    const blob = this.#prefixes.get(place.blobPrefix);
    const device = blob === undefined ? undefined : await this.open(blob);
    return device === undefined ? undefined : { device, row: place.row };
  }

  async close(): Promise<void> {
    this.#closed = true;
    while (this.#turns.size > 0) await Promise.allSettled(this.#turns.values());
    const open = [...this.#open.values()];
    this.#open.clear();
    for (const { device } of open) await device.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #load(blob: Digest): Promise<OpenBlob | undefined> {
    const known = this.#open.get(blob);
    if (known !== undefined) return known;
    if (this.#closed) throw new ShoalError('UNAVAILABLE', 'the blob store is closed');
    // Taken before anything is awaited: blobs are opened side by side, and a trap knows a device by its number alone.
    const id = this.#nextId;
    this.#nextId += 1;
    const loaded = await loadBlob(
      {
        ...this.#components,
        limit: this.#limit,
        reflink: this.#reflink,
        source: () => this.#connected(),
        index: async (device, rows) => {
          if (!device.table.shareable) return;
          await this.#index.add(device.blob, placesOf(device, rows));
          this.#components.onHeld?.(
            device.blob,
            rows.map((row) => device.table.row(row).digest),
          );
        },
        discard: () => this.#discard(blob),
      },
      { ...this.#init, blob, path: this.#path(blob), id },
    );
    if (loaded === undefined) return undefined;
    this.#open.set(blob, loaded);
    this.#prefixes?.set(blobPrefix(blob), blob);
    return loaded;
  }

  async #writeNew(blob: Digest, content: NewBlob): Promise<void> {
    const { dir } = this.#init;
    try {
      const temporary = content.staged?.directory ?? (await mkdtemp(join(dir, TEMPORARY)));
      try {
        await newBlobFiles(temporary, blob, content);
        await syncDir(temporary);
        await rename(temporary, this.#path(blob));
        await syncDir(dir);
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        throw error;
      }
    } catch (error) {
      throw storeIo(error, `cannot create layer ${blob}`);
    }
  }

  async #mergeSource(blob: Digest, known: OpenBlob, source: BlobSource): Promise<void> {
    const { info } = known;
    const same = (each: BlobSource): boolean =>
      each.registry === source.registry && each.repository === source.repository;
    if (info.sources.some(same)) return;
    const merged = { ...info, sources: [...info.sources, source] };
    await writeSealed(join(this.#path(blob), FILES.info), KINDS.info, encodeInfo(merged));
    known.info = merged;
  }

  /** All files of a blob go together: first out of sight by one rename, then for good. */
  async #discard(blob: Digest): Promise<void> {
    const { dir } = this.#init;
    try {
      const trash = await mkdtemp(join(dir, TEMPORARY));
      await rename(this.#path(blob), trash);
      await syncDir(dir);
      await rm(trash, { recursive: true, force: true });
    } catch (error) {
      throw storeIo(error, `cannot remove layer ${blob}`);
    }
  }

  #forget(blob: Digest): void {
    this.#open.delete(blob);
    this.#prefixes?.delete(blobPrefix(blob));
  }

  #connected(): ChunkStore {
    if (this.#source === undefined) throw new ShoalError('FAILED_PRECONDITION', 'no source of chunks is connected');
    return this.#source;
  }

  /** Throws UNSUPPORTED_LAYER for blake3: the hex alone is the name, and sha256 digests are as long. */
  #path(blob: Digest): string {
    if (digestAlgorithm(blob) === 'blake3') {
      throw new ShoalError('UNSUPPORTED_LAYER', 'layers must be named by sha256 or sha512', { layer: blob });
    }
    return join(this.#init.dir, digestHex(blob));
  }

  #inTurn<T>(blob: Digest, work: () => Promise<T>): Promise<T> {
    const turn = (this.#turns.get(blob) ?? Promise.resolve()).then(work, work);
    const settled = turn.then(
      () => {},
      () => {},
    );
    this.#turns.set(blob, settled);
    void settled.then(() => {
      if (this.#turns.get(blob) === settled) this.#turns.delete(blob);
    });
    return turn;
  }
}

const HEX_NAME = /^([0-9a-f]{64}|[0-9a-f]{128})$/;

function rowsOf(device: BlobDevice): number[] {
  return Array.from({ length: device.table.count }, (_, row) => row).filter((row) => device.hasChunk(row));
}

function* digestsOf(device: BlobDevice): Generator<Uint8Array> {
  for (let row = 0; row < device.table.count; row += 1) {
    if (device.hasChunk(row)) yield device.table.digestBytesAt(row);
  }
}

function* placesOf(device: BlobDevice, rows: readonly number[]): Generator<{ digest: Uint8Array; row: number }> {
  for (const row of rows) yield { digest: device.table.digestBytesAt(row), row };
}
