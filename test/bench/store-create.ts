/**
 * A blob of many small chunks: time and memory of create, of filling it (4 KiB chunks from memory), of the index, and
 * of opening it again. Usage: node --expose-gc test/bench/store-create.ts [chunks=100000]
 */
import { join } from 'node:path';
import { Level } from 'level';
import { systemClock } from '../../src/clock.ts';
import type { Chunk, ChunkRef } from '../../src/core/chunk.ts';
import type { ChunkTable } from '../../src/core/chunk-table.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { sha256 } from '../../src/core/digest.ts';
import { silentLogger } from '../../src/log.ts';
import { openBlobStore } from '../../src/store/blob-store.ts';
import { createLocalStore } from '../../src/store/local-store.ts';
import { prefetchAll } from '../../src/store/readahead.ts';
import { route } from '../../src/store/route.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';
import { claimFolder } from './support/work-folder.ts';

const count = Number(process.argv[2] ?? 100_000);
const folder = await claimFolder();
const root = folder.dir;
const signal = new AbortController().signal;
const level = new Level<string, string>(join(root, 'meta'));
try {
  await level.open();
  const db = level.sublevel<Uint8Array, Uint8Array>('chunks', { keyEncoding: 'view', valueEncoding: 'view' });
  const content = (index: number): Uint8Array => Buffer.alloc(4096, `chunk ${index};`);
  const table = await step('build table', async () => tableOf(content));
  const blob = sha256('bench blob');
  const init = { root, db };
  let store = await openBlobStore({ log: silentLogger, clock: systemClock }, init);
  const info = { format: 'bench', size: count * 100, sources: [] };
  let device = await step('create', () => store.create(blob, { chunks: table, tree: new Uint8Array(1000), info }));
  const memory = {
    has: () => true,
    get: (ref: ChunkRef): Promise<Chunk> => verifyChunk(ref, content(ref.index)),
    close: async () => {},
  };
  store.connect(route(createLocalStore({ blobs: store }), memory));
  await step('fill all (with index lookups)', () => prefetchAll(device, { signal }));
  await step('flush and index', () => device.flush());
  await step('close', () => store.close());
  store = await openBlobStore({ log: silentLogger, clock: systemClock }, init);
  device = await step('open again', async () => {
    const opened = await store.open(blob);
    if (opened === undefined) throw new Error('not there');
    return opened;
  });
  const local = createLocalStore({ blobs: store });
  await step('10,000 lookups', async () => {
    for (let row = 0; row < 10_000; row += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, index) => local.locate(device.ref(row + index).digest)));
    }
  });
  await step('verify all', () => device.verifyRange(0, device.size, { signal }));
  await step('remove', () => store.remove(blob));
  await store.close();
} finally {
  await level.close();
  await folder.close();
}

function tableOf(content: (index: number) => Uint8Array): ChunkTable {
  const builder = new ChunkTableBuilder({ compressedSize: count * 100 });
  for (let index = 0; index < count; index += 1) {
    const place = { extentOffset: index * 100, extentLength: 100, innerOffset: 0, codec: 'gzip' } as const;
    builder.add({ deviceOffset: index * 4096, length: 4096, digest: sha256(content(index)), ...place });
  }
  return builder.build();
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  global.gc?.();
  const before = process.memoryUsage();
  const startedMs = performance.now();
  const result = await work();
  const ms = performance.now() - startedMs;
  const peak = process.memoryUsage();
  global.gc?.();
  const after = process.memoryUsage();
  const mib = (bytes: number): string => (bytes / 1024 / 1024).toFixed(1).padStart(7);
  const held = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
  console.log(`${ms.toFixed(0).padStart(6)} ms  rss ${mib(peak.rss - before.rss)} MiB  held ${mib(held)} MiB  ${what}`);
  return result;
}
