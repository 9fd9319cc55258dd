import fs from 'node:fs';
import { promisify } from 'node:util';

const readAsync = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;
const writevAsync = promisify(fs.writev) as (
  fd: number,
  buffers: readonly Uint8Array[],
  position: number,
) => Promise<{ bytesWritten: number }>;

/** fdatasync(2) on the thread pool. */
export const fdatasync: (fd: number) => Promise<void> = promisify(fs.fdatasync);
/** ftruncate(2) on the thread pool. */
export const ftruncate: (fd: number, length: number) => Promise<void> = promisify(fs.ftruncate);
/** close(2) on the thread pool. */
export const closeFd: (fd: number) => Promise<void> = promisify(fs.close);

/** Fills `bytes` from `position`; what lies past the end of the file stays as it is. Gives the bytes read. */
export async function readFully(fd: number, bytes: Uint8Array, position: number): Promise<number> {
  let at = 0;
  while (at < bytes.byteLength) {
    const { bytesRead } = await readAsync(fd, bytes, at, bytes.byteLength - at, position + at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return at;
}

/** Writes all of `bytes` at `position`, however many calls it takes. */
export function writeFully(fd: number, bytes: Uint8Array, position: number): Promise<void> {
  return writevFully(fd, [bytes], position);
}

/** Writes the buffers one after the other from `position` (at most IOV_MAX of them), however many calls it takes. */
export async function writevFully(fd: number, buffers: readonly Uint8Array[], position: number): Promise<void> {
  let left = buffers;
  let at = position;
  while (left.length > 0) {
    const { bytesWritten } = await writevAsync(fd, left, at);
    at += bytesWritten;
    left = withoutFirst(left, bytesWritten);
  }
}

function withoutFirst(buffers: readonly Uint8Array[], bytes: number): readonly Uint8Array[] {
  let skip = bytes;
  let index = 0;
  while (index < buffers.length && skip >= (buffers[index] as Uint8Array).byteLength) {
    skip -= (buffers[index] as Uint8Array).byteLength;
    index += 1;
  }
  if (index === buffers.length) return [];
  return [(buffers[index] as Uint8Array).subarray(skip), ...buffers.slice(index + 1)];
}
