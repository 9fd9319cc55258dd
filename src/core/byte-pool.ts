/**
 * Large buffers that are used again. A buffer that comes from the system has to be mapped page by page as it is first
 * touched, in the process and again in the kernel, which costs more than inflating into it; and V8 counts what waits for
 * a collection, and collects over and over.
 */

/** Smaller buffers may be slices of Node's pool, and are not worth it. */
const MIN_BYTES = 64 * 1024;
/** Larger ones are rare. */
const MAX_BYTES = 16 * 1024 * 1024;
/** Sizes per power of two: at most a fifth of a buffer is spare. */
const STEPS = 4;
/** Kept for the next user, bytes: what a sequential cold read has under way. */
const MAX_KEPT_BYTES = 32 * 1024 * 1024;

interface Shelf {
  readonly buffers: ArrayBuffer[];
  /** Fewest that lay here since the last trim: nobody needed those. */
  idle: number;
}

const shelves = new Map<number, Shelf>();
/** Buffers of the pool that somebody has. */
const lent = new WeakSet<ArrayBufferLike>();
let keptBytes = 0;

/**
 * `length` bytes with anything in them. Whoever has them to himself at the end gives them back with `freeBytes`, or lets
 * them be collected.
 */
export function takeBytes(length: number): Uint8Array<ArrayBuffer> {
  if (length < MIN_BYTES || length > MAX_BYTES) return Buffer.allocUnsafeSlow(length);
  const size = sizeFor(length);
  const shelf = shelves.get(size);
  let buffer = shelf?.buffers.pop();
  if (buffer === undefined) buffer = Buffer.allocUnsafeSlow(size).buffer;
  else keptBytes -= size;
  if (shelf !== undefined) shelf.idle = Math.min(shelf.idle, shelf.buffers.length);
  lent.add(buffer);
  return Buffer.from(buffer, 0, length);
}

/**
 * Gives memory back at once that would wait for a garbage collection otherwise. Nobody may use the bytes any more: they
 * become somebody else's. Other buffers than the pool's stay as they are when small, or when `bytes` is only a part.
 */
export function freeBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (!(buffer instanceof ArrayBuffer)) return;
  const size = buffer.byteLength;
  const isWhole = size >= MIN_BYTES && bytes.byteLength === size && !isKept(buffer, size);
  if (!lent.delete(buffer) && !isWhole) return;
  // One that came back from another thread is not known as lent.
  if (size <= MAX_BYTES && sizeFor(size) === size && keptBytes + size <= MAX_KEPT_BYTES) keep(buffer, size);
  else buffer.transfer(0);
}

/** Lets go of what was not needed since the last time, to be called every few seconds; bytes let go of. */
export function trimBytes(): number {
  const before = keptBytes;
  for (const [size, shelf] of shelves) {
    for (const buffer of shelf.buffers.splice(0, shelf.idle)) {
      keptBytes -= size;
      buffer.transfer(0);
    }
    shelf.idle = shelf.buffers.length;
  }
  return before - keptBytes;
}

/** Bytes that wait for a user. */
export function pooledBytes(): number {
  return keptBytes;
}

function keep(buffer: ArrayBuffer, size: number): void {
  const shelf = shelves.get(size) ?? { buffers: [], idle: 0 };
  shelves.set(size, shelf);
  shelf.buffers.push(buffer);
  keptBytes += size;
}

/** Freed twice. */
function isKept(buffer: ArrayBuffer, size: number): boolean {
  return shelves.get(size)?.buffers.includes(buffer) === true;
}

/** The smallest size of the pool that holds `length` bytes. */
function sizeFor(length: number): number {
  const step = 2 ** (31 - Math.clz32(length - 1)) / STEPS;
  return Math.ceil(length / step) * step;
}
