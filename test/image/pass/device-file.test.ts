import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { sha256 } from '../../../src/core/digest.ts';
import { createDeviceFile } from '../../../src/image/pass/device-file.ts';
import { LayerPass } from '../../../src/image/pass/layer-pass.ts';
import { tarOf } from '../tar/tar-lab.ts';

/** A folder of a disk that knows direct I/O, or of one that lives in memory, where the kernel may not. */
const FOLDERS = { 'a disk': '/var/tmp', memory: '/dev/shm' } as const;

/** Runs `use` with an empty file and its path. */
async function withFile(base: string, use: (fd: number, path: string) => Promise<void>, flags = 'wx'): Promise<void> {
  const dir = mkdtempSync(join(base, 'shoal-device-'));
  try {
    const path = join(dir, 'data');
    const fd = openSync(path, flags);
    try {
      await use(fd, path);
    } finally {
      closeSync(fd);
    }
  } finally {
    rmSync(dir, { recursive: true });
  }
}

/** A tar of some 40 MB, files of odd lengths among it. */
function tarOfMany(): Buffer {
  const lengths = [1, 4096, 5000, 700_001, 3_000_000, 12_345_678, 17, 20_000_003, 4095];
  return tarOf(lengths.map((length, index) => ({ path: `${index}`, data: randomBytes(length) })));
}

describe('the file of a device', () => {
  const tar = tarOfMany();
  for (const [name, base] of Object.entries(FOLDERS)) {
    for (const keptBytes of [0, 5_000_000, 1 << 30]) {
      test(`on ${name} holds the chunks when ${keptBytes} bytes go through the page cache`, async () => {
        await withFile(base, async (fd, path) => {
          const file = createDeviceFile({ fd, keptBytes });
          const pass = new LayerPass({ output: file.output }, { digest: sha256(tar) });
          for (let at = 0; at < tar.byteLength; at += 4_000_000) {
            pass.write(Buffer.from(tar.subarray(at, at + 4_000_000)));
            // Now and then what was written is seen to, and now and then it piles up.
            if (at % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
          }
          const { chunks } = pass.finish();
          await file.written();
          file.close();
          const device = readFileSync(path);
          assert.equal(device.byteLength, chunks.deviceSize);
          for (let row = 0; row < chunks.count; row += 1) {
            const { deviceOffset, length, digest } = chunks.row(row);
            assert.equal(sha256(device.subarray(deviceOffset, deviceOffset + length)), digest);
          }
        });
      });
    }
  }

  test('that cannot be written says so, before it is finished or then', async () => {
    await withFile('/var/tmp', async (_, path) => {
      const fd = openSync(path, constants.O_RDONLY);
      const file = createDeviceFile({ fd, keptBytes: 1 << 30 });
      assert.throws(() => file.output(new Uint8Array(4096), 0), { code: 'EBADF' });
      file.close();
      closeSync(fd);
    });
    const full = openSync('/dev/full', 'w');
    const file = createDeviceFile({ fd: full, keptBytes: 0 });
    await assert.rejects(
      async () => {
        file.output(new Uint8Array(4096), 0);
        await file.written();
      },
      { code: 'ENOSPC' },
    );
    file.close();
    closeSync(full);
  });
});
