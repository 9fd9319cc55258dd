import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Chunk, ChunkRef } from '../../src/core/chunk.ts';
import { sha256 } from '../../src/core/digest.ts';
import { hasCode } from '../../src/errors.ts';
import type { ChunkStore } from '../../src/store/chunk-store.ts';
import { verifyChunk } from '../../src/store/verify-chunk.ts';

/** A store under test that holds what the suite gave it. */
export interface ChunkStoreSubject {
  readonly store: ChunkStore;
  /** What names each held chunk, in the order given. */
  readonly refs: readonly ChunkRef[];
  cleanup?(): Promise<void>;
}

const CONTENTS = [1, 4095, 4096, 70_000, 1_048_576].map((length) => Buffer.alloc(length, `chunk of ${length};`));

/** What every ChunkStore must do; `make` gives a fresh store that holds chunks of these contents. */
export function chunkStoreSuite(
  name: string,
  make: (contents: readonly Uint8Array[]) => Promise<ChunkStoreSubject>,
): void {
  const check = (title: string, body: (subject: ChunkStoreSubject) => Promise<void>): void => {
    test(`${name}: ${title}`, { timeout: 20_000 }, async () => {
      const subject = await make(CONTENTS);
      try {
        await body(subject);
      } finally {
        await subject.store.close();
        await subject.cleanup?.();
      }
    });
  };
  const signal = new AbortController().signal;

  check('yields each chunk it holds', async ({ store, refs }) => {
    for (const [index, ref] of refs.entries()) {
      assert.equal(await store.has(ref), true);
      const chunk = await store.get(ref, { signal });
      assert.equal(chunk.digest, ref.digest);
      assert.deepEqual(Buffer.from(chunk.bytes), CONTENTS[index]);
    }
  });

  check('yields chunks to many callers at once', async ({ store, refs }) => {
    const gets = refs.flatMap((ref) => Array.from({ length: 20 }, () => store.get(ref, { signal })));
    const chunks: Chunk[] = await Promise.all(gets);
    assert.deepEqual(
      chunks.map(({ digest }) => digest),
      refs.flatMap((ref) => Array.from({ length: 20 }, () => ref.digest)),
    );
  });

  check('says CHUNK_MISSING for a chunk it does not have', async ({ store, refs }) => {
    const other: ChunkRef = { ...(refs[0] as ChunkRef), digest: sha256('another'), length: 7 };
    assert.equal(await store.has(other), false);
    await assert.rejects(store.get(other, { signal }), (error) => hasCode(error, 'CHUNK_MISSING'));
  });

  check('rejects with the reason of a signal that is aborted already', async ({ store, refs }) => {
    const reason = new Error('not now');
    await assert.rejects(store.get(refs[0] as ChunkRef, { signal: AbortSignal.abort(reason) }), reason);
  });

  check('lets one caller give up without disturbing another', async ({ store, refs }) => {
    const ref = refs[4] as ChunkRef;
    const giver = new AbortController();
    const given = store.get(ref, { signal: giver.signal }).catch((error) => error);
    const kept = store.get(ref, { signal });
    giver.abort(new Error('gave up'));
    assert.equal((await kept).digest, ref.digest);
    await given;
  });

  check('keeps what is put, when it takes chunks', async ({ store, refs }) => {
    if (store.put === undefined) return;
    const bytes = Buffer.from('put later');
    const ref: ChunkRef = { ...(refs[0] as ChunkRef), digest: sha256(bytes), length: bytes.length };
    await store.put(ref, await verifyChunk(ref, bytes));
    assert.deepEqual(Buffer.from((await store.get(ref, { signal })).bytes), bytes);
  });

  check('closes twice', async ({ store }) => {
    await store.close();
    await store.close();
  });
}
