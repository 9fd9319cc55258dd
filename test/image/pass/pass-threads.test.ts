import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { encodeChunkTable } from '../../../src/core/chunk-table-codec.ts';
import { type Digest, sha256 } from '../../../src/core/digest.ts';
import type { RangedBlob } from '../../../src/image/layer-reader.ts';
import { createPassThreads, type PassThreads } from '../../../src/image/pass/pass-threads.ts';
import { encodeWindows } from '../../../src/image/pass/windows.ts';
import { encodeTree } from '../../../src/image/tree-codec.ts';
import { tarOf } from '../tar/tar-lab.ts';
import { passOver } from './pass-lab.ts';

const signal = AbortSignal.timeout(120_000);

/** A layer of many pieces: random text, so that windows are needed, and what does not compress. */
function sampleLayer(bytes: number): Buffer {
  const text = Buffer.from(randomBytes(bytes / 4).toString('base64'));
  const files = [
    { path: 'text', data: text },
    { path: 'twice', data: Buffer.concat([text, text.subarray(0, 70_000)]) },
    { path: 'noise', data: randomBytes(bytes / 2) },
  ];
  return gzipSync(tarOf(files), { level: 1 });
}

function blobOf(bytes: Buffer, digest: Digest = sha256(bytes)): RangedBlob {
  return {
    digest,
    size: bytes.byteLength,
    read: async (offset, length) => Buffer.from(bytes.subarray(offset, offset + length)),
  };
}

/** Runs `use` with threads and an empty file, `flags` for how it is open. */
async function withThreads(
  use: (threads: PassThreads, fd: number, path: string) => Promise<void>,
  flags: number = constants.O_WRONLY,
): Promise<void> {
  const dir = mkdtempSync('/var/tmp/shoal-pass-');
  const threads = createPassThreads();
  try {
    const path = join(dir, 'data');
    closeSync(openSync(path, 'w'));
    const fd = openSync(path, flags);
    try {
      await use(threads, fd, path);
    } finally {
      closeSync(fd);
    }
  } finally {
    await threads.close();
    rmSync(dir, { recursive: true });
  }
}

describe('a pass in a thread', () => {
  const layer = sampleLayer(24_000_000);

  test('gives what it gives in place, layer after layer', async () => {
    // The thread's steps: where input ends is a place where it is known how much output it makes.
    const expected = passOver(layer, { pieces: [1024 * 1024] });
    await withThreads(async (threads, fd, path) => {
      for (let turn = 0; turn < 2; turn += 1) {
        let told = 0;
        const onBytes = (bytes: number): void => {
          told += bytes;
        };
        const passed = await threads.pass(blobOf(layer), { fd }, { signal, onBytes });
        assert.equal(told, layer.byteLength);
        assert.deepEqual([passed.packing, passed.diffId], ['tar.gz', expected.diffId]);
        assert.equal(Buffer.compare(passed.tree, encodeTree(expected.tree)), 0);
        assert.equal(Buffer.compare(encodeChunkTable(passed.chunks), encodeChunkTable(expected.chunks)), 0);
        assert.equal(Buffer.compare(passed.windows as Uint8Array, encodeWindows(expected.windows)), 0);
        assert.equal(Buffer.compare(readFileSync(path), expected.device), 0);
      }
    });
  });

  test('of an empty layer needs no windows', async () => {
    await withThreads(async (threads, fd) => {
      const passed = await threads.pass(blobOf(gzipSync(Buffer.alloc(1024))), { fd }, { signal });
      assert.deepEqual([passed.windows, passed.chunks.count], [undefined, 0]);
    });
  });

  test('refuses bytes that are not those of the digest, and takes the next layer', async () => {
    await withThreads(async (threads, fd) => {
      await assert.rejects(threads.pass(blobOf(layer, sha256('other')), { fd }, { signal }), { code: 'INVALID_LAYER' });
      assert.equal((await threads.pass(blobOf(layer), { fd }, { signal })).packing, 'tar.gz');
    });
  });

  test('that cannot write says so', async () => {
    await withThreads(async (threads, fd) => {
      await assert.rejects(threads.pass(blobOf(layer), { fd }, { signal }), { code: 'STORE_IO' });
    }, constants.O_RDONLY);
  });

  test('ends when it is told to', async () => {
    await withThreads(async (threads, fd) => {
      const stop = new AbortController();
      const reason = new Error('enough');
      const passing = threads.pass(blobOf(layer), { fd }, { signal: stop.signal, onBytes: () => stop.abort(reason) });
      await assert.rejects(passing, reason);
    });
  });
});
