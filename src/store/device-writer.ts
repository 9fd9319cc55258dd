import { BLOCK_BYTES } from '../core/block-map.ts';
import type { Chunk, DiskCopy } from '../core/chunk.ts';
import { ShoalError } from '../errors.ts';
import { writevFully } from './file-io.ts';
import { storeIo } from './sealed-file.ts';

/** Puts chunks into a device file. */
export interface DeviceWriter {
  /** Resolves when the chunk at `offset` and the zeros that fill `span` around it are in the file. Throws STORE_IO. */
  write(
    offset: number,
    chunk: Pick<Chunk, 'bytes' | 'onDisk'>,
    span: { readonly start: number; readonly end: number },
  ): Promise<void>;
  /** Refuses what comes from now on and resolves when nothing is being written. */
  close(): Promise<void>;
}

interface Pending {
  /** Where the write starts: `lead` zeros before the bytes. */
  readonly offset: number;
  readonly lead: number;
  readonly bytes: Uint8Array;
  readonly onDisk: DiskCopy | undefined;
  readonly end: number;
  readonly done: { resolve: () => void; reject: (error: unknown) => void };
}

/** Most bytes per system call: what keeps one thread busy for a few ms. */
const MAX_WRITE_BYTES = 8 * 1024 * 1024;
/** Most chunks per system call: three buffers each, below IOV_MAX (1024). */
const MAX_WRITE_CHUNKS = 340;
const ZEROS = new Uint8Array(BLOCK_BYTES);

/**
 * One write at a time per file (the file system takes the inode's lock anyway); what arrives meanwhile is sorted, and
 * neighbours go out as one pwritev, so many small chunks cost few trips to the thread pool. A chunk that another device
 * has is not written where its blocks can be shared.
 */
export function createDeviceWriter(fd: number, name: string): DeviceWriter {
  let queue: Pending[] = [];
  let running: Promise<void> | undefined;
  let closed = false;

  async function run(): Promise<void> {
    // The chunks of one decoded range come in the same turn: let them gather.
    await Promise.resolve();
    while (queue.length > 0) {
      const batch = queue.sort((a, b) => a.offset - b.offset);
      queue = [];
      await writeAll(batch.filter(({ onDisk }) => onDisk === undefined));
      await writeAll(await withoutShared(batch.filter(({ onDisk }) => onDisk !== undefined)));
    }
    running = undefined;
  }

  async function withoutShared(batch: readonly Pending[]): Promise<Pending[]> {
    const left: Pending[] = [];
    for (const each of batch) {
      if (await each.onDisk?.shareWith(fd, each.offset)) each.done.resolve();
      else left.push(each);
    }
    return left;
  }

  async function writeAll(sorted: readonly Pending[]): Promise<void> {
    for (const group of groups(sorted)) await writeGroup(group);
  }

  async function writeGroup(group: readonly Pending[]): Promise<void> {
    try {
      const buffers: Uint8Array[] = [];
      for (const { offset, lead, bytes, end } of group) {
        if (lead !== 0) buffers.push(ZEROS.subarray(0, lead));
        buffers.push(bytes);
        const spare = end - offset - lead - bytes.byteLength;
        if (spare !== 0) buffers.push(ZEROS.subarray(0, spare));
      }
      await writevFully(fd, buffers, (group[0] as Pending).offset);
      for (const { done } of group) done.resolve();
    } catch (error) {
      const failure = storeIo(error, `cannot write layer data of ${name}`);
      for (const { done } of group) done.reject(failure);
    }
  }

  return {
    write(offset, { bytes, onDisk }, { start, end }) {
      if (closed) return Promise.reject(new ShoalError('UNAVAILABLE', `device ${name} is closed`));
      return new Promise((resolve, reject) => {
        const whole = start === offset && start % BLOCK_BYTES === 0 && end % BLOCK_BYTES === 0;
        queue.push({
          offset: start,
          lead: offset - start,
          bytes,
          // sharing takes whole blocks
          onDisk: whole ? onDisk : undefined,
          end,
          done: { resolve, reject },
        });
        running ??= run();
      });
    },
    async close() {
      closed = true;
      await running;
    },
  };
}

function* groups(sorted: readonly Pending[]): Generator<readonly Pending[]> {
  let group: Pending[] = [];
  let bytes = 0;
  for (const each of sorted) {
    const last = group.at(-1);
    if (last !== undefined) {
      const adjacent = last.end === each.offset && group.length < MAX_WRITE_CHUNKS;
      if (!adjacent || bytes + each.bytes.byteLength > MAX_WRITE_BYTES) {
        yield group;
        group = [];
        bytes = 0;
      }
    }
    group.push(each);
    bytes += each.bytes.byteLength;
  }
  if (group.length > 0) yield group;
}
