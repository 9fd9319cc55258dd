import type { Clock } from '../clock.ts';
import { BLOCK_BYTES, type BlockMap } from '../core/block-map.ts';
import { type Chunk, type ChunkRef, spanChunk, usedUp } from '../core/chunk.ts';
import type { ChunkTable } from '../core/chunk-table.ts';
import { type Digest, digestHex } from '../core/digest.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice, BlobInfo, DeviceStats } from './blob-device.ts';
import type { ChunkStore, GetOptions, Urgency } from './chunk-store.ts';
import type { DemandOrder, RowRun } from './demand-order.ts';
import { createDeviceReader } from './device-reader.ts';
import { createDeviceWriter } from './device-writer.ts';
import { closeFd } from './file-io.ts';
import { allOf, type Flight, startFlight } from './flight.ts';
import type { MapFile } from './map-file.ts';
import { createPersistence } from './persistence.ts';
import { createReadaheadDriver } from './readahead.ts';
import type { Reflink } from './reflink.ts';
import { chunkMissing } from './route.ts';
import { verifyChunk } from './verify-chunk.ts';

/** What a device works with. */
export interface BlobDeviceComponents {
  readonly clock: Clock;
  readonly log: Logger;
  readonly presence: BlockMap;
  readonly mapFile: MapFile;
  /** Shares blocks among the devices of the store. */
  readonly reflink: Reflink;
  /** The cascade; asked for at each read because it is connected after the store opens. */
  readonly source: () => ChunkStore;
  /** Runs one flush at a time in the whole store. */
  readonly limit: <T>(work: () => Promise<T>) => Promise<T>;
  /** Records what the layer's first start needs. */
  readonly order: DemandOrder;
  /** Rows of this device that other devices may copy from now on. */
  readonly index: (device: BlobDevice, rows: readonly number[]) => Promise<void>;
}

export interface BlobDeviceInit {
  readonly id: number;
  readonly blob: Digest;
  readonly path: string;
  readonly table: ChunkTable;
  /** Blocks at which large files begin or end, ascending. */
  readonly edges: Uint32Array;
  readonly info: () => BlobInfo;
  readonly dataFd: number;
  readonly mapFd: number;
  /** Reading ahead of sequential demand; on unless false. */
  readonly readahead?: boolean;
  readonly flushAfterMs?: number;
  readonly flushAfterBytes?: number;
  /** fdatasync(2), for tests. */
  readonly sync?: (fd: number) => Promise<void>;
}

const DONE = Promise.resolve();
/** Spare bytes hashed before other work gets a turn: about 0.3 ms. */
const HASH_TURN_BYTES = 512 * 1024;

/** A source was asked in vain, which another try may find otherwise. */
function isOfSource(error: unknown): boolean {
  return hasCode(error, 'SOURCE_FAILED') || hasCode(error, 'REGISTRY_RESPONSE');
}

export function createBlobDevice(components: BlobDeviceComponents, init: BlobDeviceInit): BlobDevice {
  return new SparseDevice(components, init);
}

class SparseDevice implements BlobDevice {
  readonly id: number;
  readonly name: string;
  readonly blob: Digest;
  readonly path: string;
  readonly size: number;
  readonly fd: number;
  readonly presence: BlockMap;
  readonly table: ChunkTable;
  readonly #init: BlobDeviceInit;
  readonly #components: BlobDeviceComponents;
  readonly #flights = new Map<number, Flight<void>>();
  /** Rows of a packed table that are in the file, but with no block of their own whose bit could say so. */
  readonly #unmarked = new Set<number>();
  readonly #bytesBySource: Record<string, number> = {};
  readonly #reader;
  readonly #writer;
  readonly #persistence;
  readonly #readahead;
  readonly #onComplete = new Set<() => void>();
  #corrupt = 0;
  #closing: Promise<void> | undefined;

  constructor(components: BlobDeviceComponents, init: BlobDeviceInit) {
    this.#components = components;
    this.#init = init;
    this.id = init.id;
    this.blob = init.blob;
    this.name = digestHex(init.blob);
    this.path = init.path;
    this.table = init.table;
    this.size = init.table.deviceSize;
    this.fd = init.dataFd;
    this.presence = components.presence;
    this.#reader = createDeviceReader(
      {
        table: this.table,
        reflink: components.reflink,
        present: (row) => this.hasChunk(row),
        rotten: (row) => this.#replace(row),
        clock: components.clock,
      },
      { fd: this.fd, name: this.name },
    );
    this.#writer = createDeviceWriter(this.fd, this.name);
    this.#readahead = createReadaheadDriver({ ...components, device: this }, { edges: init.edges });
    this.#persistence = createPersistence(
      {
        ...components,
        durable: (rows) => this.#durable(rows),
        lost: (rows) => this.#lost(rows),
      },
      { ...init, name: this.name },
    );
  }

  get info(): BlobInfo {
    return this.#init.info();
  }

  get startOrder(): readonly RowRun[] {
    return this.#components.order.recorded;
  }

  get complete(): boolean {
    return this.presence.complete && this.#persistence.clean;
  }

  onComplete(callback: () => void): () => void {
    this.#onComplete.add(callback);
    if (this.complete) queueMicrotask(() => this.#announceComplete());
    return () => this.#onComplete.delete(callback);
  }

  fill(offset: number, length: number, options: { signal: AbortSignal; urgency?: Urgency }): Promise<void> {
    const { signal, urgency = 'demand' } = options;
    const firstBlock = Math.floor(offset / BLOCK_BYTES);
    const endBlock = Math.ceil((offset + length) / BLOCK_BYTES);
    if (this.presence.hasRange(firstBlock, endBlock)) return DONE;
    if (signal.aborted) return Promise.reject(signal.reason);
    if (this.#closing !== undefined) return Promise.reject(this.#closed());
    const rows = this.table.covering(offset, length);
    const { flights, isJoined } = this.#flightsOf(rows, urgency);
    if (urgency === 'prefetch') return allOf(flights, signal);
    if (this.#init.readahead !== false) this.#readahead.onDemand(rows.first, rows.end);
    const filled = allOf(flights, signal);
    if (!isJoined) return filled;
    return filled.catch((error) => {
      if (signal.aborted || this.#closing !== undefined || !isOfSource(error)) throw error;
      // What was begun before this reader came may have spent its patience on a source that is back by now.
      const again = this.#flightsOf(rows, urgency).flights;
      for (const flight of flights) flight.release();
      return allOf(again, signal);
    });
  }

  /** The reads that the absent rows need, each held for the caller; `isJoined`: some were under way. */
  #flightsOf({ first, end }: RowRun, urgency: Urgency): { flights: Flight<void>[]; isJoined: boolean } {
    const flights: Flight<void>[] = [];
    let isJoined = false;
    for (let row = first; row < end; row += 1) {
      if (this.#isWritten(row)) {
        if (!this.hasChunk(row)) this.#mark(row);
        continue;
      }
      if (urgency === 'demand') this.#components.order.note(row, row + 1);
      const known = this.#flights.get(row);
      isJoined ||= known !== undefined;
      const flight = known ?? this.#start(row);
      flight.hold(urgency);
      flights.push(flight);
    }
    return { flights, isJoined };
  }

  readChunk(row: number, options: { signal: AbortSignal }): Promise<Chunk> {
    return this.#orReplace(row, options, () => this.#reader.read(row));
  }

  lendBytes(row: number, options: { signal: AbortSignal }): Promise<Uint8Array> {
    return this.#orReplace(row, options, () => this.#reader.lend(row));
  }

  async #orReplace<T>(
    row: number,
    { signal }: { signal: AbortSignal },
    read: () => Promise<T | undefined>,
  ): Promise<T> {
    const ref = this.ref(row);
    signal.throwIfAborted();
    if (this.#closing !== undefined) throw this.#closed();
    if (!this.hasChunk(row)) throw chunkMissing(ref, `not present in layer ${this.name}`);
    const found = await read();
    if (found !== undefined) return found;
    this.#replace(row);
    throw chunkMissing(ref, `the copy in layer ${this.name} is corrupt`);
  }

  #replace(row: number): void {
    this.#drop(row);
    // Readers of a complete device are not trapped any more: the wrong bytes must be replaced, not just forgotten.
    const { deviceOffset, length } = this.table.row(row);
    this.fill(deviceOffset, length, {
      signal: AbortSignal.timeout(60_000),
      urgency: 'prefetch',
    }).catch((error) =>
      this.#components.log.warn('cannot replace a corrupt chunk', { layer: this.name, error: String(error) }),
    );
  }

  async verifyRange(
    offset: number,
    length: number,
    { signal }: { signal: AbortSignal },
  ): Promise<{ checked: number; dropped: number }> {
    const { first, end } = this.table.covering(offset, length);
    let dropped = 0;
    const wrong = (row: number): void => {
      this.#drop(row);
      dropped += 1;
    };
    const checked = await this.#reader.verify(first, end, { signal, wrong });
    if (dropped > 0) await this.flush();
    return { checked, dropped };
  }

  async offerExtent(row: number, decoded: Uint8Array, source: string): Promise<void> {
    const spare: Promise<void>[] = [];
    try {
      for await (const { row: sibling, chunk } of this.#siblings(row, decoded)) {
        spare.push(this.#keep(sibling, chunk));
        this.#bytesBySource[source] = (this.#bytesBySource[source] ?? 0) + chunk.bytes.byteLength;
      }
      await Promise.all(spare);
    } catch (error) {
      this.#components.log.debug('spare chunks are not kept', { layer: this.name, error: String(error) });
      // Nothing is being written out of it any more when this settles.
      await Promise.allSettled(spare);
    }
  }

  /** The other chunks of the extent that are absent and that nobody fetches, verified. */
  async *#siblings(row: number, decoded: Uint8Array): AsyncGenerator<{ row: number; chunk: Chunk }> {
    const { extentOf, inner, length } = this.table.columns;
    let sibling = row;
    while (sibling > 0 && extentOf[sibling - 1] === extentOf[row]) sibling -= 1;
    let hashed = 0;
    for (; sibling < this.table.count && extentOf[sibling] === extentOf[row]; sibling += 1) {
      if (this.#closing !== undefined) return;
      if (this.hasChunk(sibling) || this.#flights.has(sibling)) continue;
      const start = inner[sibling] as number;
      const size = length[sibling] as number;
      const verify = this.table.shareable ? verifyChunk : spanChunk;
      yield { row: sibling, chunk: await verify(this.ref(sibling), decoded.subarray(start, start + size)) };
      hashed += size;
      if (hashed < HASH_TURN_BYTES) continue;
      hashed = 0;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  adopt(): void {
    for (let row = 0; row < this.table.count; row += 1) {
      const { first, end } = this.table.blocksOf(row);
      this.presence.setRange(first, end);
      this.#persistence.written(row, this.table.columns.length[row] as number);
    }
    if (this.presence.complete) void this.flush();
  }

  ref(row: number): ChunkRef {
    const { digest, length } = this.table.row(row);
    return { digest, length, blob: this.blob, index: row };
  }

  hasChunk(row: number): boolean {
    const { first, end } = this.table.blocksOf(row);
    return this.presence.hasRange(first, end);
  }

  underWay(row: number, urgency: Urgency): Promise<void> | undefined {
    const flight = this.#flights.get(row);
    if (urgency === 'demand') flight?.hurry();
    return flight?.promise;
  }

  stats(): DeviceStats {
    return {
      presentBytes: (this.presence.blockCount - this.presence.missing) * BLOCK_BYTES,
      bytesBySource: { ...this.#bytesBySource },
      inFlight: this.#flights.size,
      corrupt: this.#corrupt,
    };
  }

  flush(): Promise<boolean> {
    return this.#persistence.flush();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (const flight of [...this.#flights.values()]) flight.cancel(this.#closed());
    this.#readahead.close();
    await Promise.all([this.#writer.close(), this.#reader.close()]);
    // What follows a write or a read that just ended, setting or clearing bits, comes in the turns after it.
    await new Promise((resolve) => setImmediate(resolve));
    await this.#persistence.close();
    await this.#components.order.close();
    await closeFd(this.#init.mapFd);
    await closeFd(this.fd);
  }

  #start(row: number): Flight<void> {
    const flight = startFlight(
      (options) => this.#fetch(row, options),
      () => {
        if (this.#flights.get(row) === flight) this.#flights.delete(row);
      },
      (source, bytes) => {
        this.#bytesBySource[source] = (this.#bytesBySource[source] ?? 0) + bytes;
      },
    );
    this.#flights.set(row, flight);
    return flight;
  }

  async #fetch(row: number, options: GetOptions): Promise<void> {
    const chunk = await this.#components.source().get(this.ref(row), options);
    const { length, digest } = this.table.row(row);
    if (chunk.digest !== digest || chunk.bytes.byteLength !== length) {
      throw new ShoalError('CHUNK_CORRUPT', `asked for ${digest}, got ${chunk.digest}`);
    }
    await this.#keep(row, chunk);
    usedUp(chunk);
  }

  /** Writes a chunk and marks it present. */
  async #keep(row: number, chunk: Chunk): Promise<void> {
    const { deviceOffset, length } = this.table.row(row);
    await this.#writer.write(deviceOffset, chunk, this.table.spanOf(row));
    if (this.hasChunk(row)) return;
    this.#unmarked.add(row);
    this.#mark(row);
    this.#persistence.written(row, length);
    // Completion is announced when it is durable; don't make it wait for the timer.
    if (this.presence.complete) void this.flush();
  }

  /** In the file, though a block that a neighbour shares may still miss the neighbour's part. */
  #isWritten(row: number): boolean {
    if (!this.table.packed) return this.hasChunk(row);
    if (this.#unmarked.has(row)) return true;
    const { first, end } = this.table.ownBlocksOf(row);
    return first < end ? this.presence.hasRange(first, end) : this.hasChunk(row);
  }

  /** Sets the bits of a written row: of its own blocks, and of shared ones whose other chunks are written too. */
  #mark(row: number): void {
    const { first, end } = this.table.blocksOf(row);
    if (!this.table.packed) {
      this.presence.setRange(first, end);
      this.#unmarked.delete(row);
      return;
    }
    const own = this.table.ownBlocksOf(row);
    this.presence.setRange(own.first, Math.max(own.first, own.end));
    for (const block of new Set([first, end - 1])) {
      if (this.presence.hasRange(block, block + 1)) continue;
      const sharers = this.table.covering(block * BLOCK_BYTES, BLOCK_BYTES);
      const rows = Array.from({ length: sharers.end - sharers.first }, (_, index) => sharers.first + index);
      if (!rows.every((each) => this.#isWritten(each))) continue;
      this.presence.setRange(block, block + 1);
      for (const each of rows) {
        if (!this.hasChunk(each)) continue;
        this.#unmarked.delete(each);
        if (each !== row) this.#persistence.written(each, 0);
      }
    }
    if (this.hasChunk(row)) this.#unmarked.delete(row);
  }

  async #durable(rows: readonly number[]): Promise<void> {
    if (this.presence.complete) void this.flush().then(() => this.#announceComplete());
    try {
      await this.#components.index(
        this,
        rows.filter((row) => this.hasChunk(row)),
      );
    } catch (error) {
      // The index is a hint: without it these chunks are fetched again for another layer.
      this.#components.log.warn('cannot index chunks', { layer: this.name, error: String(error) });
    }
  }

  #announceComplete(): void {
    if (!this.complete) return;
    const callbacks = [...this.#onComplete];
    this.#onComplete.clear();
    for (const callback of callbacks) callback();
  }

  #lost(rows: readonly number[]): void {
    for (const row of rows) this.#clear(row);
  }

  #drop(row: number): void {
    if (!this.hasChunk(row)) return;
    this.#corrupt += 1;
    this.#components.log.warn('chunk on disk is corrupt, forgetting it', {
      layer: this.name,
      chunk: this.table.row(row).digest,
    });
    this.#clear(row);
  }

  #clear(row: number): void {
    const { first, end } = this.table.blocksOf(row);
    this.#unmarked.delete(row);
    this.presence.clearRange(first, end);
    this.#persistence.cleared();
  }

  #closed(): ShoalError {
    return new ShoalError('UNAVAILABLE', `device ${this.name} is closed`);
  }
}
