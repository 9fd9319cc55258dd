/**
 * Cold sequential fill through device, cascade and origin store: compressible data in 4 MiB gzip members, served from a
 * file. Prints MB/s of uncompressed data per read size, next to plain inflate of the same blob on one thread.
 * Usage: node test/bench/store-fill.ts [MiB=256] [latencyMs=0]
 */
import { closeSync, openSync, read, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { systemClock } from '../../src/clock.ts';
import type { RangedBlob } from '../../src/image/layer-reader.ts';
import { silentLogger } from '../../src/log.ts';
import { createOriginStore } from '../../src/source/origin/origin-store.ts';
import { openBlobStore } from '../../src/store/blob-store.ts';
import { dedup } from '../../src/store/dedup.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { prefetchAll } from '../../src/store/readahead.ts';
import { route } from '../../src/store/route.ts';
import { MemoryIndexDb, testBlob } from '../store/blob-fixture.ts';
import { contentOf } from '../store/store-fixture.ts';
import { claimFolder } from './support/work-folder.ts';

const MIB = 1024 * 1024;
const sizeMib = Number(process.argv[2] ?? 256);
const latencyMs = Number(process.argv[3] ?? 0);
const readAt = promisify(read) as (
  fd: number,
  into: Uint8Array,
  at: number,
  length: number,
  position: number,
) => Promise<unknown>;
const signal = new AbortController().signal;

/** Words of skewed frequency with some noise: compresses to about 40 %, as binaries and libraries do. */
function compressible(bytes: number, seed: number): Uint8Array {
  let state = seed;
  const next = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  const words = Array.from({ length: 2_000 }, () =>
    Buffer.from(Array.from({ length: 3 + next() * 9 }, () => next() * 256)),
  );
  const out = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; ) at += (words[Math.floor(next() ** 3 * words.length)] as Buffer).copy(out, at);
  return out;
}

const folder = await claimFolder();
const { dir } = folder;
try {
  const blob = testBlob(Array.from({ length: sizeMib / 4 }, (_, index) => compressible(4 * MIB, index + 1)));
  const file = join(dir, 'blob');
  writeFileSync(file, blob.compressed);
  console.log(
    `${sizeMib} MiB, compressed to ${(blob.compressed.length / MIB).toFixed(0)} MiB, latency ${latencyMs} ms`,
  );
  const inflateMs = await timed(async () => {
    for (let row = 0; row < blob.table.extentCount; row += 1) {
      const { offset, length } = blob.table.extent(row);
      gunzipSync(blob.compressed.subarray(offset, offset + length), { chunkSize: 4 * MIB });
    }
  });
  print('inflate alone, one thread', inflateMs);
  for (const step of [128 * 1024, 512 * 1024, MIB]) {
    await withDevice(async (device, requests) => {
      const ms = await timed(async () => {
        for (let at = 0; at < device.size; at += step) await device.fill(at, step, { signal });
      });
      print(`sequential fill, ${step / 1024} KiB steps, ${requests()} requests`, ms);
    });
  }
  await withDevice(async (device, requests) => {
    const ms = await timed(() => prefetchAll(device, { signal }));
    print(`prefetchAll, ${requests()} requests`, ms);
  });

  async function withDevice(
    body: (
      device: Awaited<ReturnType<Awaited<ReturnType<typeof openBlobStore>>['create']>>,
      requests: () => number,
    ) => Promise<void>,
  ): Promise<void> {
    const fd = openSync(file, 'r');
    const store = await openBlobStore(
      { log: silentLogger, clock: systemClock },
      { root: dir, db: new MemoryIndexDb() },
    );
    let requests = 0;
    const ranged: RangedBlob = {
      digest: blob.digest,
      size: blob.compressed.length,
      async read(offset, length) {
        requests += 1;
        if (latencyMs > 0) await sleep(latencyMs);
        const bytes = new Uint8Array(length);
        await readAt(fd, bytes, 0, length, offset);
        return bytes;
      },
    };
    const origin = createOriginStore({ blobs: { table: () => blob.table, ranged: () => ranged } });
    store.connect(dedup(route(createLocalStore({ blobs: store }), origin)));
    const cpu = process.cpuUsage();
    await body(await store.create(blob.digest, contentOf(blob)), () => requests);
    const { user, system } = process.cpuUsage(cpu);
    console.log(
      `    cpu user ${(user / 1e6).toFixed(2)} s system ${(system / 1e6).toFixed(2)} s, rss ${(process.memoryUsage().rss / MIB).toFixed(0)} MiB`,
    );
    await store.remove(blob.digest);
    await store.close();
    closeSync(fd);
  }
} finally {
  await folder.close();
}

async function timed(work: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

function print(what: string, ms: number): void {
  console.log(`${((sizeMib * 1.048576) / (ms / 1000)).toFixed(0).padStart(6)} MB/s  ${what}`);
}
