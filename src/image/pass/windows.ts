import { zstdDecompressSync } from 'node:zlib';
import { ShoalError } from '../../errors.ts';
import { WINDOW_BYTES } from './window-trimmer.ts';

/** Packed windows as one file: how many, where each ends, then the windows. Little-endian. */
export function encodeWindows(windows: readonly Uint8Array[]): Uint8Array {
  const headBytes = 4 + 4 * windows.length;
  const head = Buffer.alloc(headBytes);
  head.writeUInt32LE(windows.length, 0);
  let end = headBytes;
  for (const [row, window] of windows.entries()) {
    end += window.byteLength;
    head.writeUInt32LE(end, 4 + 4 * row);
  }
  return Buffer.concat([head, ...windows]);
}

/** Reads one window out of such a file by range. Throws STATE_CORRUPT. */
export async function readWindow(
  row: number,
  read: (offset: number, length: number) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  // The end of the window before is where this one starts; for the first, that is the count, and the end of the head.
  const head = Buffer.from(await read(4 * row, 8));
  const start = row === 0 ? 4 + 4 * head.readUInt32LE(0) : head.readUInt32LE(0);
  const length = head.readUInt32LE(4) - start;
  if (!(length > 0 && length <= 2 * WINDOW_BYTES)) throw corrupt();
  return unpackWindow(await read(start, length));
}

/** The 32 KiB that `packed` stands for. Throws STATE_CORRUPT. */
export function unpackWindow(packed: Uint8Array): Uint8Array {
  let window: Uint8Array;
  try {
    window = zstdDecompressSync(packed, { maxOutputLength: WINDOW_BYTES });
  } catch (cause) {
    throw corrupt(cause);
  }
  if (window.byteLength !== WINDOW_BYTES) throw corrupt();
  return window;
}

/** Throws STATE_CORRUPT unless `bytes` are `count` windows as `encodeWindows` makes them. */
export function checkWindows(bytes: Uint8Array, count: number): void {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (buffer.byteLength < 4 + 4 * count || buffer.readUInt32LE(0) !== count) throw corrupt();
  let start = 4 + 4 * count;
  for (let row = 0; row < count; row += 1) {
    const end = buffer.readUInt32LE(4 + 4 * row);
    if (end <= start || end > buffer.byteLength || end - start > 2 * WINDOW_BYTES) throw corrupt();
    start = end;
  }
  if (start !== buffer.byteLength) throw corrupt();
}

function corrupt(cause?: unknown): ShoalError {
  return new ShoalError('STATE_CORRUPT', 'the windows of a layer are not what was written', { cause });
}
