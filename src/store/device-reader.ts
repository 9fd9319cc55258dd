import type { Clock } from '../clock.ts';
import { BLOCK_BYTES } from '../core/block-map.ts';
import { freeBytes, takeBytes } from '../core/byte-pool.ts';
import { type Chunk, spanChunk } from '../core/chunk.ts';
import type { ChunkTable } from '../core/chunk-table.ts';
import { hasCode, ShoalError } from '../errors.ts';
import { ERRNO } from '../kernel/errno.ts';
import type { FilePlace } from '../kernel/reflink.ts';
import { readFully } from './file-io.ts';
import { createRecentChecks } from './recent-checks.ts';
import type { Reflink } from './reflink.ts';
import { storeIo } from './sealed-file.ts';
import { verifyChunk } from './verify-chunk.ts';

/** Reads the chunks of a device file, verified; they can share their disk blocks with other devices. */
export interface DeviceReader {
  /**
   * The chunk as the file has it, or undefined when it is not what it should be or cannot be read. Throws STORE_IO, or
   * UNAVAILABLE when closed.
   */
  read(row: number): Promise<Chunk | undefined>;
  /**
   * The chunk's bytes for a neighbour, who hashes them again: not hashed here when they were a moment ago and the file is
   * the same since. Else as `read`. The buffer is the caller's to free.
   */
  lend(row: number): Promise<Uint8Array | undefined>;
  /**
   * Reads what is present of rows [first, end) and tells `wrong` of each that is not what it should be; rows read. None of
   * a table whose chunks have no digests.
   */
  verify(first: number, end: number, options: { signal: AbortSignal; wrong: (row: number) => void }): Promise<number>;
  /** Refuses what comes from now on and resolves when nothing is being read or shared. */
  close(): Promise<void>;
}

/** Chunks hashed at a time by `verify`: keeps both cores busy and memory below 4 chunks. */
const VERIFY_PARALLEL = 4;

/**
 * Smaller chunks are written, not shared, bytes: cloning and reading back takes 0.1 to 0.2 ms whatever the size, which
 * made filling a layer of 8 kB chunks from another three times slower.
 */
const MIN_SHARED_BYTES = 64 * 1024;

/** `rotten` is told of rows whose bytes on disk are not those in the page cache. */
export function createDeviceReader(
  components: {
    readonly table: ChunkTable;
    readonly reflink: Reflink;
    readonly present: (row: number) => boolean;
    readonly rotten: (row: number) => void;
    readonly clock: Pick<Clock, 'nowMs'>;
  },
  { fd, name }: { fd: number; name: string },
): DeviceReader {
  const { table, reflink, present, rotten } = components;
  const checks = createRecentChecks(components, { fd });
  const underWay = new Set<Promise<unknown>>();
  let closed = false;

  async function tracked<T>(work: Promise<T>): Promise<T> {
    underWay.add(work);
    try {
      return await work;
    } finally {
      underWay.delete(work);
    }
  }

  async function readVerified(row: number): Promise<Chunk | undefined> {
    const { deviceOffset, length, digest } = table.row(row);
    const { start, end } = table.spanOf(row);
    const lead = deviceOffset - start;
    const padded = takeBytes(end - start);
    const isZeros = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);
    try {
      const got = await readFully(fd, padded, start);
      if (got < padded.byteLength || !isZeros(padded.subarray(0, lead)) || !isZeros(padded.subarray(lead + length)))
        return undefined;
      // What is on disk was verified when it was written; there is nothing to hold it against now.
      if (!table.shareable) return spanChunk({ digest, length }, padded.subarray(lead, lead + length));
      const whole = lead === 0 && start % BLOCK_BYTES === 0 && end % BLOCK_BYTES === 0;
      const worthwhile = reflink.possible && whole && length >= MIN_SHARED_BYTES;
      const onDisk = worthwhile
        ? { shareWith: (to: number, offset: number) => share(row, padded, { fd: to, offset }) }
        : undefined;
      return await verifyChunk({ digest, length }, padded.subarray(lead, lead + length), { owned: true, onDisk });
    } catch (error) {
      return unreadable(error);
    }
  }

  async function lendNow(row: number): Promise<Uint8Array | undefined> {
    const stamp = checks.stamp();
    if (!checks.has(row, stamp)) {
      const chunk = await readVerified(row);
      if (chunk !== undefined && table.shareable) checks.note(row, stamp);
      return chunk?.bytes;
    }
    const { deviceOffset, length } = table.row(row);
    const bytes = takeBytes(length);
    try {
      return (await readFully(fd, bytes, deviceOffset)) === length ? bytes : undefined;
    } catch (error) {
      return unreadable(error);
    }
  }

  /** Undefined for what only this row's blocks are to blame for; else throws STORE_IO. */
  function unreadable(error: unknown): undefined {
    if (hasCode(error, 'CHUNK_CORRUPT')) return undefined;
    const failure = storeIo(error, `cannot read layer data of ${name}`);
    if (failure.context.errno === ERRNO.EIO) return undefined;
    throw failure;
  }

  async function share(row: number, padded: Uint8Array, to: FilePlace): Promise<boolean> {
    // The row may have been dropped, or the descriptor closed, since the bytes were read.
    if (closed || !present(row)) return false;
    return tracked(shareNow(row, padded, to));
  }

  async function shareNow(row: number, padded: Uint8Array, to: FilePlace): Promise<boolean> {
    const from = { fd, offset: table.row(row).deviceOffset };
    if (!(await reflink.share(from, to, padded.byteLength))) return false;
    // What was verified may have come from the page cache, what is shared is on disk: read it from there and compare.
    const back = takeBytes(padded.byteLength);
    const got = await readFully(to.fd, back, to.offset).catch(() => 0);
    const isSame = got === back.byteLength && Buffer.compare(back, padded) === 0;
    freeBytes(back);
    if (isSame) return true;
    rotten(row);
    return false;
  }

  async function open<T>(work: () => Promise<T>): Promise<T> {
    if (closed) throw new ShoalError('UNAVAILABLE', `device ${name} is closed`);
    return tracked(work());
  }

  const read = (row: number): Promise<Chunk | undefined> => open(() => readVerified(row));

  return {
    read,
    lend: (row) => open(() => lendNow(row)),
    async verify(first, end, { signal, wrong }) {
      if (!table.shareable) return 0;
      let next = first;
      let checked = 0;
      const worker = async (): Promise<void> => {
        while (next < end) {
          const row = next++;
          if (!present(row)) continue;
          signal.throwIfAborted();
          checked += 1;
          const chunk = await read(row);
          if (chunk === undefined) wrong(row);
          else freeBytes(chunk.bytes);
        }
      };
      await Promise.all(Array.from({ length: VERIFY_PARALLEL }, worker));
      return checked;
    },
    async close() {
      closed = true;
      await Promise.allSettled(underWay);
    },
  };
}
