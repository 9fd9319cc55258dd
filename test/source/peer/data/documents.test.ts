import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../../../src/clock.ts';
import { type Digest, sha256 } from '../../../../src/core/digest.ts';
import { type Documents, sharedDocuments } from '../../../../src/source/peer/data/documents.ts';
import { createMemoryHub, type MemoryHub } from '../../../../src/source/peer/memory-directory.ts';
import { verifyChunk } from '../../../../src/store/verify-chunk.ts';
import { type Member, type MemberInit, startMember } from './member.ts';

const limits = { timeout: 60_000 };
const IMAGE = 'reg.example/app:1';

async function withMembers(
  count: number,
  use: (members: readonly Member[], hub: MemoryHub) => Promise<void>,
  init: (index: number) => MemberInit = () => ({}),
): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const hub = createMemoryHub({ clock: systemClock });
  const members: Member[] = [];
  for (let index = 0; index < count; index += 1) members.push(stack.use(await startMember(hub, init(index))));
  await use(members, hub);
}

function documentsOf({ plane }: Member): Documents {
  assert.ok(plane.documents !== undefined);
  return plane.documents;
}

/** Gets the document, with a registry that counts. */
function reader(bytes: Uint8Array, init: { image?: string; ms?: number } = {}) {
  const digest = sha256(bytes);
  const asked: string[] = [];
  return {
    digest,
    asked,
    async get(member: Member): Promise<Uint8Array> {
      const use = { image: init.image ?? IMAGE, subject: digest, signal: AbortSignal.timeout(20_000) };
      return await documentsOf(member).through(digest, use, async () => {
        asked.push(member.self.id);
        await sleep(init.ms ?? 0);
        return bytes;
      });
    },
  };
}

test('a document that one node has comes to the others from there, and is counted', limits, async () => {
  await withMembers(3, async ([a, b, c]) => {
    const bytes = randomBytes(300_000);
    const manifest = reader(bytes);
    for (const member of [a, b, c] as Member[])
      assert.deepEqual(new Uint8Array(await manifest.get(member)), new Uint8Array(bytes));
    assert.deepEqual(manifest.asked, [a?.self.id]);
    assert.equal(b?.counters.neighbour.bytes, bytes.byteLength);
    await manifest.get(b as Member);
    assert.equal(b?.counters.neighbour.requests, 1, 'it is here now');
    await a?.leave();
    await b?.leave();
    assert.deepEqual(new Uint8Array(await manifest.get(c as Member)), new Uint8Array(bytes));
    assert.equal(manifest.asked.length, 1);
  });
});

test('eight nodes that want the same documents at once ask the registry for each once', limits, async () => {
  await withMembers(8, async (members) => {
    const all = Array.from({ length: 5 }, () => reader(randomBytes(50_000), { ms: 300 }));
    await Promise.all(all.flatMap(({ get }) => members.map((member) => get(member))));
    assert.deepEqual(
      all.map(({ asked }) => asked.length),
      [1, 1, 1, 1, 1],
    );
  });
});

test('documents of private images are neither asked for nor given away', limits, async () => {
  const isPrivate = (image: string): boolean => image.startsWith('reg.example/secret');
  await withMembers(
    2,
    async ([a, b], hub) => {
      const secret = reader(randomBytes(1_000), { image: 'reg.example/secret:1' });
      await secret.get(a as Member);
      await secret.get(b as Member);
      assert.equal(secret.asked.length, 2);
      assert.equal(hub.providers.get(secret.digest)?.size ?? 0, 0);
      const options = { signal: AbortSignal.timeout(5_000), urgency: 'demand' } as const;
      const ref = { digest: secret.digest, length: 1_000 };
      await assert.rejects((b as Member).client.fetch((a as Member).self, ref, options), /does not have it/);
    },
    () => ({ isPrivate }),
  );
});

test('what was kept before an image became private stays here', limits, async () => {
  let secret = false;
  await withMembers(
    2,
    async ([a, b]) => {
      const config = reader(randomBytes(1_000));
      await config.get(a as Member);
      secret = true;
      const options = { signal: AbortSignal.timeout(5_000), urgency: 'demand', isAtMost: true } as const;
      const ref = { digest: config.digest, length: 5_000 };
      await assert.rejects((b as Member).client.fetch((a as Member).self, ref, options), /does not have it/);
      const record = { digest: config.digest, length: 1, image: IMAGE };
      const store = { all: () => [record] } as unknown as Parameters<typeof sharedDocuments>[0];
      assert.deepEqual(
        sharedDocuments(store, () => true),
        [],
      );
      assert.deepEqual(
        sharedDocuments(store, () => false),
        [config.digest],
      );
    },
    () => ({ isPrivate: () => secret }),
  );
});

test(
  'a registry that fails, or gives other bytes than the digest says, leaves the document to others',
  limits,
  async () => {
    await withMembers(2, async ([a, b], hub) => {
      const bytes = randomBytes(2_000);
      const { digest, get } = reader(bytes);
      const use = (): { image: string; subject: Digest; signal: AbortSignal } => ({
        ...{ image: IMAGE, subject: digest, signal: AbortSignal.timeout(10_000) },
      });
      await assert.rejects(
        documentsOf(a as Member).through(digest, use(), async () => {
          throw new Error('no registry');
        }),
        /no registry/,
      );
      // Whoever fetched it knows what to make of wrong bytes; nobody else gets them.
      await documentsOf(a as Member).through(digest, use(), async () => randomBytes(2_000));
      assert.equal(hub.providers.get(digest)?.size ?? 0, 0);
      const started = performance.now();
      assert.deepEqual(new Uint8Array(await get(b as Member)), new Uint8Array(bytes));
      assert.ok(performance.now() - started < 3_000, 'no lease is waited out');
    });
  },
);

test('a neighbour that sends other bytes than the document is banned, and the registry asked', limits, async () => {
  await withMembers(2, async ([a, b], hub) => {
    const bytes = randomBytes(4_000);
    const wanted = reader(bytes);
    const member = a as Member;
    // Its disk is what lies, and nothing looks at what it gives.
    const other = randomBytes(4_000);
    const lie = await verifyChunk({ digest: sha256(other), length: 4_000 }, other);
    const { store } = member.documents;
    const [find, read] = [store.find.bind(store), store.read.bind(store)];
    store.find = (digest) => (digest === wanted.digest ? { digest, length: 4_000, image: IMAGE } : find(digest));
    store.read = async (digest) => (digest === wanted.digest ? lie : await read(digest));
    hub.providers.set(wanted.digest, new Set([member.self.id]));
    assert.deepEqual(new Uint8Array(await wanted.get(b as Member)), new Uint8Array(bytes));
    assert.equal(wanted.asked.length, 1);
    assert.deepEqual(b?.directory.peers(), [], 'it is banned');
    assert.equal(b?.counters.neighbour.errors.CHUNK_CORRUPT, 1);
  });
});
