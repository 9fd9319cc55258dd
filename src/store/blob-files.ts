import { randomInt } from 'node:crypto';
import fs, { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import { BLOCK_BYTES, BlockMap } from '../core/block-map.ts';
import type { ChunkTable } from '../core/chunk-table.ts';
import { decodeChunkTable, encodeChunkTable } from '../core/chunk-table-codec.ts';
import type { Digest } from '../core/digest.ts';
import { hasCode, ShoalError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobDevice, BlobInfo } from './blob-device.ts';
import { createDemandOrder, type DemandOrder, decodeOrder, type RowRun } from './demand-order.ts';
import { decodeEdges, encodeEdges } from './edges.ts';
import { closeFd, fdatasync, ftruncate, writeFully } from './file-io.ts';
import { loadMapFile, newMapFile } from './map-file.ts';
import { encodeSealed, readSealed, storeIo, writeSealed, writeSynced } from './sealed-file.ts';
import { type BlobDeviceComponents, createBlobDevice } from './sparse-device.ts';

/** Files of a blob's directory. */
export const FILES = {
  data: 'data',
  map: 'map',
  table: 'table',
  tree: 'tree',
  info: 'info',
  windows: 'windows',
  order: 'order',
  edges: 'edges',
} as const;
/** Kinds of its sealed files. */
export const KINDS = {
  table: 'table',
  tree: 'tree',
  info: 'info',
  windows: 'windows',
  order: 'order',
  edges: 'edges',
} as const;

/** A blob whose files are open. */
export interface OpenBlob {
  readonly device: BlobDevice;
  info: BlobInfo;
}

/** Tuning of `loadBlob`. */
export interface LoadInit {
  /** How much of what is present is hashed again; see `openBlobStore`. */
  readonly verifyOnOpen?: 'none' | 'sample' | 'full';
  /** Opens a data file read-write; a restarted daemon gives descriptors here that were opened before the trap's mark. */
  readonly openData?: (path: string) => number;
  readonly readahead?: boolean;
  readonly flushAfterMs?: number;
  readonly flushAfterBytes?: number;
  /** fdatasync(2), for tests. */
  readonly sync?: (fd: number) => Promise<void>;
}

/** Present chunks hashed by `sample`: a data file emptied by half passes with probability 1/256. */
const SAMPLE_CHUNKS = 8;
const NO_EDGES = new Uint32Array(0);

/** Writes the files of a new blob into a directory, all synced; the data file may be there already, whole or in part. */
export async function newBlobFiles(
  dir: string,
  blob: Digest,
  content: {
    chunks: ChunkTable;
    tree: Uint8Array;
    info: BlobInfo;
    windows?: Uint8Array;
    edges?: Uint32Array | undefined;
    staged?: unknown;
  },
): Promise<void> {
  const { chunks, tree, info, windows, edges = NO_EDGES } = content;
  await writeSynced(join(dir, FILES.table), encodeSealed(KINDS.table, encodeChunkTable(chunks)));
  await writeSynced(join(dir, FILES.tree), encodeSealed(KINDS.tree, tree));
  await writeSynced(join(dir, FILES.info), encodeSealed(KINDS.info, encodeInfo(info)));
  if (windows !== undefined) await writeSynced(join(dir, FILES.windows), encodeSealed(KINDS.windows, windows));
  if (edges.length > 0) await writeSynced(join(dir, FILES.edges), encodeSealed(KINDS.edges, encodeEdges(edges)));
  await writeSynced(join(dir, FILES.map), newMapFile(blob, chunks.deviceSize / BLOCK_BYTES, emptyMap(chunks).bytes));
  const fresh = content.staged === undefined ? constants.O_CREAT | constants.O_EXCL : 0;
  const data = await open(join(dir, FILES.data), constants.O_WRONLY | constants.O_NOFOLLOW | fresh, 0o600);
  try {
    await data.truncate(chunks.deviceSize);
    // What was written before is made durable like any other chunk, behind the mount: nobody waits for it.
    if (content.staged === undefined) await data.sync();
  } finally {
    await data.close();
  }
}

/** BlobInfo as bytes. */
export function encodeInfo(info: BlobInfo): Uint8Array {
  return Buffer.from(JSON.stringify(info));
}

/**
 * Opens a blob's files. Undefined when there are none, or when table, tree or info are not what was written: then the whole
 * blob is discarded. A map that cannot be believed, or a data file of another length, costs the data only.
 */
export async function loadBlob(
  components: Omit<BlobDeviceComponents, 'presence' | 'mapFile' | 'order'> & {
    log: Logger;
    clock: Clock;
    discard: () => Promise<void>;
  },
  init: LoadInit & { blob: Digest; path: string; id: number },
): Promise<OpenBlob | undefined> {
  const described = await readDescription(components, init);
  if (described === undefined) return undefined;
  const { table } = described;
  const order = await loadOrder(components.log, init, table);
  const edges = await loadEdges(components.log, init, table);
  const dataFd = openDataFile(init);
  let mapFd: number | undefined;
  let opened: BlobDevice | undefined;
  try {
    mapFd = fs.openSync(join(init.path, FILES.map), constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    const { presence, mapFile } = await loadPresence(components.log, init, table, { dataFd, mapFd });
    const state = { info: described.info };
    const device = createBlobDevice(
      { ...components, presence, mapFile, order },
      { ...init, path: join(init.path, FILES.data), table, edges, dataFd, mapFd, info: () => state.info },
    );
    opened = device;
    await verifyOpened(components.log, device, init.verifyOnOpen ?? 'sample');
    return Object.assign(state, { device });
  } catch (error) {
    if (opened !== undefined) await opened.close();
    else {
      if (mapFd !== undefined) await closeFd(mapFd);
      await closeFd(dataFd);
    }
    throw storeIo(error, `cannot open layer ${init.blob}`);
  }
}

async function readDescription(
  components: { log: Logger; discard: () => Promise<void> },
  { blob, path }: { blob: Digest; path: string },
): Promise<{ table: ChunkTable; info: BlobInfo } | undefined> {
  if (!fs.existsSync(path)) return undefined;
  try {
    const table = await readSealed(join(path, FILES.table), KINDS.table);
    const info = await readSealed(join(path, FILES.info), KINDS.info);
    // Read for its checksum: a layer whose tree is lost must be made anew, and this is where that is decided.
    const tree = await readSealed(join(path, FILES.tree), KINDS.tree);
    if (table === undefined || info === undefined || tree === undefined)
      throw new ShoalError('STATE_CORRUPT', 'a file is missing');
    return { table: decodeChunkTable(table), info: JSON.parse(Buffer.from(info).toString()) as BlobInfo };
  } catch (error) {
    if (hasCode(error, 'STORE_IO')) throw error;
    components.log.error('layer state cannot be used, removing the layer', {
      code: 'STATE_CORRUPT',
      layer: blob,
      error: String(error),
    });
    await components.discard();
    return undefined;
  }
}

/** The order of an earlier start; one that cannot be believed is recorded anew. */
async function loadOrder(
  log: Logger,
  { blob, path }: { blob: Digest; path: string },
  table: ChunkTable,
): Promise<DemandOrder> {
  const file = join(path, FILES.order);
  let recorded: RowRun[] | undefined;
  try {
    const payload = await readSealed(file, KINDS.order);
    if (payload !== undefined) recorded = decodeOrder(payload, table.count);
  } catch (error) {
    log.warn('the order of a start cannot be used', { layer: blob, error: String(error) });
  }
  const save = (payload: Uint8Array): Promise<void> => writeSealed(file, KINDS.order, payload);
  return createDemandOrder({ log, save }, { name: blob, recorded });
}

/** Where large files begin and end; layers of older versions have no such file, and are read as if all were small. */
async function loadEdges(
  log: Logger,
  { blob, path }: { blob: Digest; path: string },
  table: ChunkTable,
): Promise<Uint32Array> {
  try {
    const payload = await readSealed(join(path, FILES.edges), KINDS.edges);
    if (payload !== undefined) return decodeEdges(payload, table.deviceSize / BLOCK_BYTES);
  } catch (error) {
    log.warn('the ends of files cannot be used', { layer: blob, error: String(error) });
  }
  return NO_EDGES;
}

function openDataFile({ path, openData }: { path: string; openData?: (path: string) => number }): number {
  const file = join(path, FILES.data);
  const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW;
  try {
    return openData?.(file) ?? fs.openSync(file, flags, 0o600);
  } catch (error) {
    throw storeIo(error, `cannot open ${file}`);
  }
}

/** The bits on disk when they can be believed, else a punched data file and no bits. */
async function loadPresence(
  log: Logger,
  { blob }: { blob: Digest },
  table: ChunkTable,
  fds: { dataFd: number; mapFd: number },
): Promise<Pick<BlobDeviceComponents, 'presence' | 'mapFile'>> {
  const blockCount = table.deviceSize / BLOCK_BYTES;
  const loaded = await loadMapFile(fds.mapFd, blob, blockCount);
  const { size } = fs.fstatSync(fds.dataFd);
  if (loaded !== undefined && size === table.deviceSize) {
    return { presence: new BlockMap(blockCount, loaded.bitmap), mapFile: loaded.file };
  }
  log.error('layer data cannot be trusted, starting it afresh', {
    code: 'STATE_CORRUPT',
    layer: blob,
    why: loaded === undefined ? 'map is not valid' : `data has ${size} bytes, expected ${table.deviceSize}`,
  });
  const presence = emptyMap(table);
  // The map first: a crash in between must not leave bits over a file of holes.
  const fresh = newMapFile(blob, blockCount, presence.bytes);
  await ftruncate(fds.mapFd, 0);
  await writeFully(fds.mapFd, fresh, 0);
  await fdatasync(fds.mapFd);
  // only where it must be: truncating a trapped file waits for whoever answers for it, and without bits nobody reads it
  if (size !== table.deviceSize) {
    await ftruncate(fds.dataFd, 0);
    await ftruncate(fds.dataFd, table.deviceSize);
  }
  const again = await loadMapFile(fds.mapFd, blob, blockCount);
  if (again === undefined) throw new ShoalError('STORE_IO', `the map of layer ${blob} does not read back`);
  return { presence, mapFile: again.file };
}

async function verifyOpened(log: Logger, device: BlobDevice, mode: 'none' | 'sample' | 'full'): Promise<void> {
  if (mode === 'none') return;
  const signal = new AbortController().signal;
  if (mode === 'sample') {
    let dropped = 0;
    for (const row of sampleRows(device)) {
      const { deviceOffset, length } = device.table.row(row);
      dropped += (await device.verifyRange(deviceOffset, length, { signal })).dropped;
    }
    if (dropped === 0) return;
  }
  const { checked, dropped } = await device.verifyRange(0, device.size, { signal });
  if (dropped > 0) log.error('layer data was damaged', { layer: device.name, checked, dropped, code: 'STATE_CORRUPT' });
}

function sampleRows(device: BlobDevice): Set<number> {
  const rows = new Set<number>();
  if (device.table.count === 0) return rows;
  // Mostly absent devices are sampled less; looking longer for present chunks is not worth it.
  for (let tries = 0; tries < 4 * SAMPLE_CHUNKS && rows.size < SAMPLE_CHUNKS; tries += 1) {
    const row = randomInt(device.table.count);
    if (device.hasChunk(row)) rows.add(row);
  }
  return rows;
}

/** Nothing present but the blocks that no chunk covers: they are zeros, and stay zeros. */
function emptyMap(table: ChunkTable): BlockMap {
  const map = new BlockMap(table.deviceSize / BLOCK_BYTES);
  let at = 0;
  for (let row = 0; row < table.count; row += 1) {
    const { first, end } = table.blocksOf(row);
    map.setRange(at, first);
    at = end;
  }
  return map;
}
