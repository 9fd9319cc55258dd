import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { createInflater } from '../../../src/kernel/zlib.ts';

const INPUT_BYTES = 1024 * 1024;
const OUTPUT_BYTES = 256 * 1024;

/**
 * What a pass over a tar.gz of one member cannot do without: read the file, hash it, inflate it, and hash what comes out
 * twice (SHA-256 each), in one thread, with two buffers that stay in the cache. A third faster than Node.js's own stream,
 * which takes new memory for each output. CPU microseconds per byte of tar.
 */
export function passFloor(path: string): number {
  const before = process.cpuUsage();
  const hashes = [createHash('sha256'), createHash('sha256')];
  const blob = createHash('sha256');
  const inflater = createInflater();
  const input = Buffer.allocUnsafeSlow(INPUT_BYTES);
  const output = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  const fd = openSync(path, 'r');
  let bytes = 0;
  for (let ended = false; !ended; ) {
    const end = readSync(fd, input, 0, INPUT_BYTES, null);
    if (end === 0) throw new Error(`${path} ends within its first gzip member`);
    blob.update(input.subarray(0, end));
    for (let start = 0; start < end && !ended; ) {
      const room = { bytes: output, start: 0, end: OUTPUT_BYTES };
      const step = inflater.run({ bytes: input, start, end }, room, { stopAtBlock: false });
      for (const hash of hashes) hash.update(output.subarray(0, step.made));
      start += step.taken;
      bytes += step.made;
      ended = step.ended;
    }
  }
  inflater.close();
  closeSync(fd);
  const { user, system } = process.cpuUsage(before);
  return (user + system) / bytes;
}
