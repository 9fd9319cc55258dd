/** Smaller buffers may be slices of Node's pool, and are not worth it. */
const MIN_BYTES = 64 * 1024;

/**
 * Gives memory back at once that would wait for a garbage collection otherwise; large buffers waiting are what makes
 * V8 collect over and over (a fifth of the CPU of a cold read). Nobody may use the bytes any more: who does finds
 * length 0. Does nothing for bytes that share their buffer with others.
 */
export function freeBytes(bytes: Uint8Array): void {
  const { buffer } = bytes;
  if (bytes.byteLength < MIN_BYTES || bytes.byteLength !== buffer.byteLength) return;
  if (buffer instanceof ArrayBuffer) buffer.transfer(0);
}
