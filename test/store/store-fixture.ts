import { hash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import type { Chunk, ChunkRef } from '../../src/core/chunk.ts';
import { type Digest, digestHex } from '../../src/core/digest.ts';
import type { LogFields, Logger } from '../../src/log.ts';
import type { BlobDevice } from '../../src/store/blob-device.ts';
import { type BlobStore, type NewBlob, openBlobStore } from '../../src/store/blob-store.ts';
import type { ChunkStore, GetOptions } from '../../src/store/chunk-store.ts';
import { decodeEdges } from '../../src/store/edges.ts';
import { createMemoryStore } from '../../src/store/memory-store.ts';
import { readSealed } from '../../src/store/sealed-file.ts';
import { MemoryIndexDb, type TestBlob, verified } from './blob-fixture.ts';

/** Options of `openBlobStore` a test may want to change. */
export type StoreOptions = Partial<Parameters<typeof openBlobStore>[1]>;

/** A state root that goes away with the test. */
export async function stateRoot(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'shoal-store-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** Opens a store on `root` without timers that outlive a test. */
export function openStore(
  root: string,
  options: StoreOptions = {},
  log: Logger = new RecordingLogger(),
): Promise<BlobStore> {
  return openBlobStore({ log, clock: systemClock }, { root, db: new MemoryIndexDb(), ...options });
}

/** What `create` wants, for a test blob. */
export function contentOf(blob: TestBlob): NewBlob {
  const sources = [{ registry: 'registry.example', repository: 'library/app' }];
  return {
    chunks: blob.table,
    tree: Buffer.from('tree'),
    info: { format: 'test', size: blob.compressed.length, sources },
  };
}

/** A source that holds these blobs' chunks and counts who asks. */
export class CountingSource implements ChunkStore {
  readonly gets: ChunkRef[] = [];
  before: (ref: ChunkRef, options: GetOptions) => Promise<void> = async () => {};
  readonly #inner;

  constructor(chunks: Iterable<Chunk>) {
    this.#inner = createMemoryStore(chunks);
  }

  static async of(...blobs: readonly TestBlob[]): Promise<CountingSource> {
    return new CountingSource((await Promise.all(blobs.map(verified))).flat());
  }

  has(): boolean {
    return false;
  }

  async get(ref: ChunkRef, options: GetOptions): Promise<Chunk> {
    this.gets.push(ref);
    await this.before(ref, options);
    options.signal.throwIfAborted();
    return this.#inner.get(ref, options);
  }

  async close(): Promise<void> {}
}

/** Keeps log lines for a test to look at. */
export class RecordingLogger implements Logger {
  readonly lines: { level: string; message: string; fields: LogFields }[] = [];
  debug(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'debug', message, fields });
  }
  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'info', message, fields });
  }
  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'warn', message, fields });
  }
  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: 'error', message, fields });
  }
}

/** The blocks that are kept of a layer as beginnings and ends of large files. */
export async function storedEdges(root: string, blob: Digest): Promise<number[]> {
  const payload = await readSealed(join(root, 'blobs', digestHex(blob), 'edges'), 'edges');
  return payload === undefined ? [] : [...decodeEdges(payload, 2 ** 32)];
}

/** Rows whose bits are set although the file does not hold their bytes, padding included. */
export async function wrongRows(device: BlobDevice): Promise<number[]> {
  const data = await readFile(device.path);
  const wrong: number[] = [];
  for (let row = 0; row < device.table.count; row += 1) {
    const { deviceOffset, length, digest } = device.table.row(row);
    const { first, end } = device.table.blocksOf(row);
    const padding = data.subarray(deviceOffset + length, end * 4096);
    let any = false;
    for (let block = first; block < end; block += 1) any ||= device.presence.hasRange(block, block + 1);
    if (!any) continue;
    const found = hash('sha256', data.subarray(deviceOffset, deviceOffset + length), 'hex');
    if (`sha256:${found}` !== digest || padding.some((byte) => byte !== 0)) wrong.push(row);
  }
  return wrong;
}
