import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { freeBytes, takeBytes } from '../../src/core/byte-pool.ts';
import { type Chunk, type ChunkRef, usedUp } from '../../src/core/chunk.ts';
import type { ChunkTable } from '../../src/core/chunk-table.ts';
import { ChunkTableBuilder } from '../../src/core/chunk-table-builder.ts';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import { ShoalError } from '../../src/errors.ts';
import { decodeExtent } from '../../src/image/codec.ts';
import type { RangedBlob, ReadOptions } from '../../src/image/layer-reader.ts';
import { createOriginStore, type OnExtent } from '../../src/source/origin/origin-store.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { FakeRangedBlob, randomChunks, type TestBlob, testBlob } from '../store/blob-fixture.ts';
import { chunkStoreSuite } from '../suites/chunk-store-suite.ts';

const MIB = 1024 * 1024;
const signal = new AbortController().signal;

chunkStoreSuite('origin', async (contents) => {
  const { store, refs } = originOf(testBlob(contents, { perExtent: 2 }));
  return { store, refs };
});

test('reads of one turn become few requests over neighbours', async () => {
  const blob = testBlob(randomChunks(100, 5_000));
  let fetched = 0;
  const { store, refs, ranged } = originOf(blob, {}, (bytes) => {
    fetched += bytes;
  });
  const chunks = await Promise.all(refs.map((ref) => store.get(ref, { signal })));
  for (const [index, { bytes }] of chunks.entries()) assert.deepEqual(Buffer.from(bytes), blob.chunks[index]);
  assert.equal(ranged.reads.length, 1);
  assert.equal(fetched, blob.compressed.length);
});

test('a reader gets its chunk while the rest of the request is still on its way, also when that is tried again', async () => {
  const blob = testBlob(randomChunks(4, 200_000));
  const { store, refs, ranged } = originOf(blob);
  const rest = Promise.withResolvers<void>();
  const half = blob.table.extent(2).offset;
  ranged.arrive = async (bytes, onBytes) => {
    onBytes(bytes, half - 1);
    onBytes(Uint8Array.from(bytes), half);
    await rest.promise;
  };
  const reads = refs.map((ref) => store.get(ref, { signal }));
  const early = await Promise.all(reads.slice(0, 2));
  let done = false;
  void Promise.all(reads).then(() => (done = true));
  await sleep(5);
  assert.equal(done, false);
  rest.resolve();
  const chunks = [...early, ...(await Promise.all(reads.slice(2)))];
  for (const [index, { bytes }] of chunks.entries()) assert.deepEqual(Buffer.from(bytes), blob.chunks[index]);
  assert.equal(ranged.reads.length, 1);
});

test('far extents travel apart, near ones together, and no request passes its limit', async () => {
  const blob = testBlob(randomChunks(60, 60_000));
  const limits = { maxGapBytes: 64 * 1024, demandRequestBytes: 300_000, prefetchRequestBytes: 600_000, maxRequests: 1 };
  const { store, refs, ranged } = originOf(blob, limits);
  await Promise.all([0, 2, 10].map((row) => store.get(refs[row] as ChunkRef, { signal })));
  assert.equal(ranged.reads.length, 2, 'a gap of one extent is bridged, one of seven is not');
  ranged.reads.length = 0;
  await Promise.all(refs.map((ref) => store.get(ref, { signal })));
  assert.ok(ranged.reads.every(({ length }) => length <= 300_000));
  assert.ok(ranged.reads.length <= 15, `${ranged.reads.length}`);
  ranged.reads.length = 0;
  await Promise.all(refs.map((ref) => store.get(ref, { signal, urgency: 'prefetch' })));
  assert.ok(ranged.reads.some(({ length }) => length > 300_000));
  assert.ok(ranged.reads.every(({ length }) => length <= 600_000));
});

test('demand goes before prefetch that came earlier, and requests under way are bounded', async () => {
  const blob = testBlob(randomChunks(40, 50_000));
  const { store, refs, ranged } = originOf(blob, {
    maxRequests: 2,
    maxGapBytes: 0,
    prefetchRequestBytes: 1,
    demandRequestBytes: 1,
  });
  let active = 0;
  let most = 0;
  ranged.before = async () => {
    active += 1;
    most = Math.max(most, active);
    await sleep(5);
    active -= 1;
  };
  // Every other extent, so that no two are neighbours.
  const order: number[] = [];
  const get = async (row: number, urgency: 'demand' | 'prefetch'): Promise<void> => {
    await store.get(refs[row] as ChunkRef, { signal, urgency });
    order.push(row);
  };
  const early = [0, 2, 4, 6, 8, 10, 12, 14].map((row) => get(row, 'prefetch'));
  await sleep(1);
  await Promise.all([...early, get(30, 'demand')]);
  assert.ok(order.indexOf(30) <= 4, `${order}`);
  assert.equal(most, 2);
});

test('chunks of one extent share one fetch, also those asked for soon after', async () => {
  const blob = testBlob(randomChunks(10, 3_000), { perExtent: 10 });
  const { store, refs, ranged } = originOf(blob);
  await Promise.all(refs.slice(0, 5).map((ref) => store.get(ref, { signal })));
  assert.equal(ranged.reads.length, 1);
  await Promise.all(refs.map((ref) => store.get(ref, { signal })));
  assert.equal(ranged.reads.length, 1);
});

test('what an extent decoded to is used again when nobody looks at it any more, not before', async () => {
  const blob = testBlob(randomChunks(12, 200_000), { perExtent: 4 });
  const offered = Promise.withResolvers<void>();
  const decoded: Uint8Array[] = [];
  const { store, refs } = originOf(blob, { keptBytes: 800_000 }, undefined, async (_ref, bytes) => {
    decoded.push(bytes);
    await offered.promise;
  });
  const isGone = (at: number): boolean => {
    const taken = takeBytes(800_000);
    const same = taken.buffer === decoded[at]?.buffer;
    if (same) freeBytes(taken);
    return same;
  };
  const [first, second] = await Promise.all(refs.slice(0, 2).map((ref) => store.get(ref, { signal })));
  // Only one extent is kept: these take its place.
  usedUp(await store.get(refs[4] as ChunkRef, { signal }));
  usedUp(await store.get(refs[8] as ChunkRef, { signal }));
  usedUp(first as Chunk);
  offered.resolve();
  await sleep(1);
  assert.equal(isGone(0), false, 'one chunk of it is in use');
  assert.deepEqual(Buffer.from((second as Chunk).bytes), blob.chunks[1]);
  usedUp(second as Chunk);
  assert.equal(isGone(0), true);
});

test('a wrong answer is fetched once more, then it is an error', async () => {
  const blob = testBlob(randomChunks(2, 5_000), { perExtent: 2 });
  const { store, refs, ranged } = originOf(blob);
  const spoil = (bytes: Uint8Array): Uint8Array => {
    const copy = Uint8Array.from(bytes);
    copy[copy.length >> 2] = (copy[copy.length >> 2] as number) ^ 0x10;
    return copy;
  };
  ranged.alter = (bytes) => (ranged.reads.length === 1 ? spoil(bytes) : bytes);
  assert.deepEqual(Buffer.from((await store.get(refs[0] as ChunkRef, { signal })).bytes), blob.chunks[0]);
  assert.equal(ranged.reads.length, 2);
  const second = originOf(blob);
  second.ranged.alter = spoil;
  await assert.rejects(second.store.get(refs[0] as ChunkRef, { signal }), { code: 'CHUNK_CORRUPT' });
  assert.equal(second.ranged.reads.length, 2);
});

test('a failed request fails its readers with its own error, and the next read asks anew where the blob is', async () => {
  const blob = testBlob(randomChunks(3, 5_000));
  const { store, refs, ranged, opened } = originOf(blob);
  ranged.before = async () => {
    throw new ShoalError('REGISTRY_RESPONSE', 'no', { status: 503 });
  };
  const results = await Promise.allSettled(refs.map((ref) => store.get(ref, { signal })));
  assert.ok(results.every((each) => each.status === 'rejected' && each.reason.code === 'REGISTRY_RESPONSE'));
  ranged.before = async () => {};
  await store.get(refs[0] as ChunkRef, { signal });
  assert.equal(opened.length, 2);
});

test('a request is aborted when the last of its readers has left', async () => {
  const blob = testBlob(randomChunks(3, 5_000));
  const { store, refs, ranged } = originOf(blob);
  const aborts: boolean[] = [];
  ranged.before = (inner) =>
    new Promise((resolve) =>
      inner.addEventListener('abort', () => {
        aborts.push(true);
        resolve();
      }),
    );
  const readers = refs.map(() => new AbortController());
  const reads = refs.map((ref, index) =>
    store.get(ref, { signal: (readers[index] as AbortController).signal }).catch((error: Error) => error.message),
  );
  await sleep(10);
  readers[0]?.abort(new Error('0'));
  readers[1]?.abort(new Error('1'));
  await sleep(5);
  assert.equal(aborts.length, 0);
  readers[2]?.abort(new Error('2'));
  assert.deepEqual(await Promise.all(reads), ['0', '1', '2']);
  assert.equal(aborts.length, 1);
});

test('closing ends the reads under way', async () => {
  const blob = testBlob(randomChunks(1, 5_000));
  const { store, refs, ranged } = originOf(blob);
  ranged.before = () => new Promise(() => {});
  const read = store.get(refs[0] as ChunkRef, { signal });
  await sleep(5);
  await store.close();
  await assert.rejects(read, { code: 'UNAVAILABLE' });
});

test('chunks asked for at once never hold more memory than the budget, over all blobs, and all come', async () => {
  const most = 256 * MIB;
  const load = new Load(10, 20, { plain: randomChunks(1, 4 * MIB)[0] as Uint8Array });
  const store = load.store({ inFlightBytes: most });
  const lengths = await Promise.all(
    load.refs.map(async (ref) => {
      const { bytes } = await store.get(ref, { signal });
      const { byteLength } = bytes;
      freeBytes(bytes);
      return byteLength;
    }),
  );
  assert.equal(lengths.length, 200);
  assert.ok(lengths.every((length) => length === 4 * MIB));
  assert.ok(load.most <= most, `${load.most} bytes in flight`);
  assert.ok(load.most > most / 2, `only ${load.most} bytes in flight`);
  assert.equal(load.held, 0);
});

test('extents that expand a lot are not all decoded at once, and those given up make room', async () => {
  const load = new Load(1, 50, { plain: new Uint8Array(4 * MIB) });
  const store = load.store({});
  const reader = new AbortController();
  const reads = load.refs.map((ref, index) => store.get(ref, { signal: index % 2 === 0 ? signal : reader.signal }));
  load.onDecode = () => reader.abort(new Error('enough'));
  const results = await Promise.allSettled(reads);
  assert.equal(load.reads, 1);
  for (const [index, { status }] of results.entries()) if (index % 2 === 0) assert.equal(status, 'fulfilled');
  assert.ok(results.some((each) => each.status === 'rejected' && each.reason.message === 'enough'));
  assert.ok(load.mostDecoding <= 16 * MIB && load.mostDecoding > 4 * MIB, `${load.mostDecoding} bytes being decoded`);
});

test('an extent larger than the budget goes alone', async () => {
  const load = new Load(3, 2, { plain: randomChunks(1, MIB)[0] as Uint8Array });
  const store = load.store({ inFlightBytes: 1000, maxGapBytes: 0, demandRequestBytes: 1 });
  await Promise.all(load.refs.map((ref) => store.get(ref, { signal })));
  assert.equal(load.reads, 6);
  assert.ok(load.most < 2.01 * MIB, `${load.most} bytes in flight`);
});

test('prefetch that hangs, of however many blobs, leaves room for demand; and readers that leave do too', async () => {
  const load = new Load(8, 4, { plain: randomChunks(1, MIB)[0] as Uint8Array });
  const store = load.store({ inFlightBytes: 10 * MIB, prefetchRequestBytes: 1 });
  load.before = (inner) =>
    new Promise((_, reject) => inner.addEventListener('abort', () => reject(inner.reason), { once: true }));
  const reader = new AbortController();
  const hung = load.refs
    .slice(0, -4)
    .map((ref) =>
      store.get(ref, { signal: reader.signal, urgency: 'prefetch' }).catch((error: Error) => error.message),
    );
  await sleep(10);
  const reads = load.reads;
  assert.ok(reads >= 2 && load.held <= 7.5 * MIB, `${reads} reads, ${load.held} bytes`);
  load.before = async () => {};
  await store.get(load.refs.at(-1) as ChunkRef, { signal });
  assert.equal(load.reads, reads + 1);
  reader.abort(new Error('enough'));
  assert.ok((await Promise.all(hung)).every((message) => message === 'enough'));
  await sleep(5);
  await Promise.all(load.refs.map((ref) => store.get(ref, { signal, urgency: 'prefetch' })));
});

test('prefetch of a blob that waits for memory gives way to demand of the same blob', async () => {
  const load = new Load(2, 8, { plain: randomChunks(1, MIB)[0] as Uint8Array });
  const store = load.store({ inFlightBytes: 4 * MIB, maxGapBytes: 0, prefetchRequestBytes: 1, demandRequestBytes: 1 });
  const order: number[] = [];
  const get = async (index: number, urgency: 'demand' | 'prefetch'): Promise<void> => {
    await store.get(load.refs[index] as ChunkRef, { signal, urgency });
    order.push(index);
  };
  const early = Array.from({ length: 15 }, (_, index) => get(index, 'prefetch'));
  await sleep(1);
  await Promise.all([...early, get(15, 'demand')]);
  assert.ok(order.indexOf(15) <= 3, `${order}`);
  assert.equal(load.held, 0);
});

/** Blobs of the same chunk over and over, served from memory: counts what the requests under way hold. */
class Load {
  readonly refs: ChunkRef[] = [];
  /** Compressed and decoded bytes in memory now, and at most. */
  held = 0;
  most = 0;
  decoding = 0;
  mostDecoding = 0;
  reads = 0;
  before: (signal: AbortSignal) => Promise<void> = () => sleep(2);
  onDecode: () => void = () => {};
  readonly #tables = new Map<Digest, ChunkTable>();
  readonly #member: Uint8Array;
  /** Extents of each request's buffer that are still to be decoded. */
  readonly #left = new Map<ArrayBufferLike, number>();

  constructor(blobs: number, chunks: number, { plain }: { plain: Uint8Array }) {
    this.#member = gzipSync(plain, { level: 1 });
    const digest = sha256(plain);
    const extentLength = this.#member.byteLength;
    for (let each = 0; each < blobs; each += 1) {
      const blob = sha256(Buffer.from(`blob ${each}`));
      const builder = new ChunkTableBuilder({ compressedSize: chunks * extentLength });
      for (let index = 0; index < chunks; index += 1) {
        const [deviceOffset, extentOffset] = [index * plain.byteLength, index * extentLength];
        const row = { deviceOffset, length: plain.byteLength, digest, extentOffset, extentLength, innerOffset: 0 };
        builder.add({ ...row, codec: 'gzip' });
        this.refs.push({ digest, length: plain.byteLength, blob, index });
      }
      this.#tables.set(blob, builder.build());
    }
  }

  store(init: Parameters<typeof createOriginStore>[1]): ChunkStore {
    const decode: typeof decodeExtent = (...args) => this.#decode(...args);
    const blobs = {
      table: (blob: Digest) => this.#tables.get(blob),
      ranged: (digest: Digest): RangedBlob => ({
        digest,
        size: (this.#tables.get(digest)?.extentCount ?? 0) * this.#member.byteLength,
        read: (_, length, options) => this.#read(length, options),
      }),
    };
    return createOriginStore({ blobs, decode }, init);
  }

  async #read(length: number, options: ReadOptions): Promise<Uint8Array> {
    this.reads += 1;
    this.#hold(length);
    try {
      await this.before(options.signal);
      options.signal.throwIfAborted();
      const bytes = new Uint8Array(length);
      for (let at = 0; at < length; at += this.#member.byteLength) bytes.set(this.#member, at);
      this.#left.set(bytes.buffer, length / this.#member.byteLength);
      return bytes;
    } catch (error) {
      this.#hold(-length);
      throw error;
    }
  }

  async #decode(...[codec, bytes, decodedLength, options]: Parameters<typeof decodeExtent>): Promise<Uint8Array> {
    const { buffer } = bytes;
    const length = buffer.byteLength;
    this.#hold(decodedLength);
    this.decoding += decodedLength;
    this.mostDecoding = Math.max(this.mostDecoding, this.decoding);
    try {
      const decoded = await decodeExtent(codec, bytes, decodedLength, options);
      this.onDecode();
      return decoded;
    } finally {
      this.decoding -= decodedLength;
      this.#hold(-decodedLength);
      const left = (this.#left.get(buffer) as number) - 1;
      this.#left.set(buffer, left);
      if (left === 0) this.#hold(-length);
    }
  }

  #hold(bytes: number): void {
    this.held += bytes;
    this.most = Math.max(this.most, this.held);
  }
}

function originOf(
  blob: TestBlob,
  init: Parameters<typeof createOriginStore>[1] = {},
  onBytes: (bytes: number) => void = () => {},
  onExtent?: OnExtent,
): { store: ChunkStore; refs: ChunkRef[]; ranged: FakeRangedBlob; opened: string[] } {
  const ranged = new FakeRangedBlob(blob);
  const opened: string[] = [];
  const store = createOriginStore(
    {
      blobs: {
        table: (digest) => (digest === blob.digest ? blob.table : undefined),
        ranged: async (digest) => {
          opened.push(digest);
          return ranged;
        },
      },
      onFetched: (_blob, bytes) => onBytes(bytes),
      ...(onExtent === undefined ? {} : { onExtent }),
    },
    init,
  );
  const refs = blob.chunks.map((_, index): ChunkRef => {
    const { digest, length } = blob.table.row(index);
    return { digest, length, blob: blob.digest, index };
  });
  return { store, refs, ranged, opened };
}
