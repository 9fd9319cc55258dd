import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { digestHex } from '../../src/core/digest.ts';
import { hasCode } from '../../src/errors.ts';
import { decodeEdges, encodeEdges } from '../../src/store/edges.ts';
import { randomChunks, testBlob } from './blob-fixture.ts';
import { CountingSource, contentOf, openStore, RecordingLogger, stateRoot } from './store-fixture.ts';

const { signal } = new AbortController();
const CHUNK = 256 * 1024;
/** Chunks of a file in the tests below. */
const FILE = 5;

test('edges read back as they were, and what cannot be edges of the device is refused', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(0xffffffff)), (blocks) => {
      const edges = Uint32Array.from(blocks).sort();
      assert.deepEqual(decodeEdges(encodeEdges(edges), 0xffffffff), edges);
    }),
  );
  for (const bad of [Uint8Array.of(1, 0, 0), encodeEdges(Uint32Array.of(5, 5)), encodeEdges(Uint32Array.of(3, 9))]) {
    assert.throws(
      () => decodeEdges(bad, 8),
      (error) => hasCode(error, 'STATE_CORRUPT'),
    );
  }
});

test('readahead of a device stops at the end of the file, also after a restart', async () => {
  await using root = await stateRoot();
  const blob = testBlob(randomChunks(4 * FILE, CHUNK));
  const edges = Uint32Array.from({ length: 5 }, (_, file) => (file * FILE * CHUNK) / 4096);
  const log = new RecordingLogger();
  const file = join(root.path, 'blobs', digestHex(blob.digest), 'edges');
  /** Reads the first two chunks of a file; gives the rows that came. */
  const readFrom = async (row: number): Promise<number[]> => {
    await using store = await openStore(root.path, { verifyOnOpen: 'none' }, log);
    const source = await CountingSource.of(blob);
    store.connect(source);
    const device = (await store.open(blob.digest)) ?? (await store.create(blob.digest, { ...contentOf(blob), edges }));
    for (const each of [row, row + 1]) await device.fill(each * CHUNK, CHUNK, { signal });
    await device.close();
    return source.gets.map(({ index }) => index as number).sort((a, b) => a - b);
  };
  assert.deepEqual(await readFrom(0), [0, 1, 2, 3, 4]);
  assert.deepEqual(await readFrom(FILE), [5, 6, 7, 8, 9]);

  // Layers of older versions have no such file.
  await rm(file);
  const beyond = await readFrom(2 * FILE);
  assert.ok(beyond.includes(3 * FILE), `${beyond}`);
  assert.deepEqual(log.lines, []);
  await writeFile(file, 'rotten');
  await readFrom(3 * FILE);
  assert.match(JSON.stringify(log.lines), /the ends of files cannot be used/);
});
