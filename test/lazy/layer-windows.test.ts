import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { zstdCompressSync } from 'node:zlib';
import { sha256 } from '../../src/core/digest.ts';
import { encodeWindows } from '../../src/image/pass/windows.ts';
import { windowsOf } from '../../src/lazy/layer-windows.ts';
import type { BlobDevice } from '../../src/store/blob-device.ts';

const WINDOW_BYTES = 32 * 1024;
const LAYER = sha256('layer');

/** Windows that pack to about 5,000 bytes each, and a store that has them. */
function lab(count = 60) {
  const windows = Array.from({ length: count }, () => Buffer.concat([randomBytes(5_000), Buffer.alloc(27_768)]));
  let device: BlobDevice | undefined = {} as BlobDevice;
  let file = encodeWindows(windows.map((window) => zstdCompressSync(window)));
  let fails = false;
  const reads: number[] = [];
  const window = windowsOf({
    opened: () => device,
    async readWindows(_blob, offset, length) {
      reads.push(offset);
      if (fails) throw new Error('disk');
      return file.subarray(offset, offset + length);
    },
  });
  return {
    windows,
    window,
    reads,
    fail: (now: boolean) => (fails = now),
    /** The layer goes; it comes again with these windows. */
    replace(others: readonly Uint8Array[]) {
      file = encodeWindows(others.map((each) => zstdCompressSync(each)));
      device = {} as BlobDevice;
    },
    close: () => (device = undefined),
  };
}

test('windows are what was written, in whatever order they are asked for, and neighbours come with one read', async () => {
  const { windows, window, reads } = lab();
  for (const row of windows.keys()) assert.deepEqual(Buffer.from(await window(LAYER, row)), windows[row]);
  assert.ok(reads.length <= 6, `${reads}`);
  const rows = await Promise.all([59, 0, 30, 12].map((row) => window(LAYER, row)));
  assert.deepEqual(
    rows.map(Buffer.from),
    [59, 0, 30, 12].map((row) => windows[row]),
  );
});

test('a layer that was made anew has its own windows', async () => {
  const { window, replace, close } = lab();
  await window(LAYER, 3);
  const others = [randomBytes(WINDOW_BYTES), randomBytes(WINDOW_BYTES)];
  replace(others);
  assert.deepEqual(Buffer.from(await window(LAYER, 1)), others[1]);
  close();
  assert.deepEqual(Buffer.from(await window(LAYER, 0)), others[0]);
});

test('a read that failed is tried again, and what ends early is STATE_CORRUPT', async () => {
  const { windows, window, fail } = lab();
  fail(true);
  await assert.rejects(window(LAYER, 3), /disk/);
  fail(false);
  assert.deepEqual(Buffer.from(await window(LAYER, 3)), windows[3]);
  await assert.rejects(window(LAYER, 100_000), { code: 'STATE_CORRUPT' });
});
