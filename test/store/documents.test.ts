import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Chunk } from '../../src/core/chunk.ts';
import { type Digest, digestHex, sha256 } from '../../src/core/digest.ts';
import { silentLogger } from '../../src/log.ts';
import { type DocumentStore, openDocuments } from '../../src/store/documents.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';

const KIB = 1024;

async function withStore(
  use: (lab: { directory: string; gone: Digest[]; open(): Promise<DocumentStore> }) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'shoal-documents-'));
  const directory = join(folder, 'documents');
  const gone: Digest[] = [];
  const onGone = (digests: readonly Digest[]): void => void gone.push(...digests);
  try {
    const open = () => openDocuments({ log: silentLogger, onGone }, { directory, maxBytes: 100 * KIB });
    await use({ directory, gone, open });
  } finally {
    await rm(folder, { recursive: true });
  }
}

function document(length: number): Promise<Chunk> {
  const bytes = randomBytes(length);
  return verifyChunk({ digest: sha256(bytes), length }, bytes);
}

test('a document is there again after a restart, with the image it was fetched for', async () => {
  await withStore(async ({ open, gone }) => {
    const store = await open();
    const chunk = await document(5_000);
    await Promise.all([store.put(chunk, 'reg/app:1'), store.put(chunk, 'reg/app:1')]);
    const again = await open();
    const record = { digest: chunk.digest, length: 5_000, image: 'reg/app:1' };
    assert.deepEqual(again.all(), [record]);
    assert.deepEqual(again.find(chunk.digest), record);
    assert.deepEqual((await again.read(chunk.digest))?.bytes, new Uint8Array(chunk.bytes));
    assert.equal(await again.read(sha256('other')), undefined);
    assert.deepEqual(gone, []);
  });
});

test('what was unused for longest makes room, and is told of', async () => {
  await withStore(async ({ directory, open, gone }) => {
    const store = await open();
    const chunks = await Promise.all(Array.from({ length: 5 }, () => document(20 * KIB)));
    for (const chunk of chunks) await store.put(chunk, 'a');
    assert.equal(store.all().length, 5);
    await store.read((chunks[0] as Chunk).digest);
    await store.put(await document(1), 'a');
    assert.deepEqual(gone, [(chunks[1] as Chunk).digest]);
    assert.equal(store.find((chunks[1] as Chunk).digest), undefined);
    assert.equal((await readdir(directory)).length, 5);
    await store.put(await document(26 * KIB), 'a');
    assert.equal(store.all().length, 5, 'more than a quarter of all room is not for one');
    await store.put(await document(10), 'x'.repeat(2_000));
    assert.equal(store.all().length, 5);
  });
});

test('bytes that changed on disk are never given, and files that are no documents go', async () => {
  await withStore(async ({ directory, open, gone }) => {
    const store = await open();
    const [chunk, cut] = await Promise.all([document(3_000), document(3_000)]);
    for (const each of [chunk, cut]) await store.put(each, 'a');
    const path = join(directory, digestHex(chunk.digest));
    await writeFile(path, Buffer.alloc(4_024, '{"image":"a"}   '.padEnd(1_024)));
    await writeFile(join(directory, digestHex(cut.digest)), '{"image":"a"}');
    assert.equal(await store.read(chunk.digest), undefined);
    assert.deepEqual(gone, [chunk.digest]);
    assert.equal(store.find(chunk.digest), undefined);
    assert.equal(await store.read(cut.digest), undefined, 'its end is missing');
    for (const name of ['notes', digestHex(sha256('a')), `${digestHex(sha256('b'))}.new`]) {
      await writeFile(join(directory, name), randomBytes(2_000));
    }
    assert.deepEqual((await open()).all(), []);
    assert.deepEqual(await readdir(directory), []);
  });
});
