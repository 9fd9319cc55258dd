import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Digest, sha256 } from '../../src/core/digest.ts';
import type { HaveMap, HeldChunks, Neighbour, PeerDirectory } from '../../src/source/peer/directory.ts';

/** Members of one swarm under test, all of which know each other. */
export interface DirectorySubject {
  readonly members: readonly PeerDirectory[];
  cleanup(): Promise<void>;
}

/** What a member holds, as the test says. */
export interface FakeHeld extends HeldChunks {
  readonly maps: Map<Digest, HaveMap>;
  readonly digests: Digest[];
}

/** Holds nothing at first. */
export function fakeHeld(): FakeHeld {
  const maps = new Map<Digest, HaveMap>();
  const digests: Digest[] = [];
  return {
    maps,
    digests,
    haveMap: (blob) => maps.get(blob),
    async *all() {
      if (digests.length > 0) yield digests;
    },
  };
}

/** What find gives within `forMs`, without repetitions. */
export async function findAll(directory: PeerDirectory, digest: Digest, forMs = 1_000): Promise<Neighbour[]> {
  const found = new Map<string, Neighbour>();
  try {
    for await (const neighbour of directory.find(digest, { signal: AbortSignal.timeout(forMs) })) {
      found.set(neighbour.id, neighbour);
    }
  } catch (error) {
    assert.equal((error as Error).name, 'TimeoutError');
  }
  return [...found.values()];
}

/** Waits until `check` holds; what it last threw is the reason when it never does. */
export async function eventually(check: () => Promise<void> | void, forMs = 10_000): Promise<void> {
  for (const end = performance.now() + forMs; ; ) {
    try {
      return await check();
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(50);
    }
  }
}

const DIGESTS = ['a', 'b', 'c', 'd'].map((name) => sha256(`chunk ${name}`));
const BLAKE3 = `blake3:${'5a'.repeat(32)}` as Digest;
const BLOB = sha256('blob');
const signal = new AbortController().signal;

/** What every PeerDirectory must do; `make` gives members of a fresh swarm, one for each of `held`. */
export function peerDirectorySuite(
  name: string,
  make: (held: readonly HeldChunks[]) => Promise<DirectorySubject>,
): void {
  const check = (
    title: string,
    body: (members: readonly PeerDirectory[], held: readonly FakeHeld[]) => Promise<void>,
    count = 4,
  ): void => {
    test(`${name}: ${title}`, { timeout: 60_000 }, async () => {
      const held = Array.from({ length: count }, fakeHeld);
      const subject = await make(held);
      try {
        await body(subject.members, held);
      } finally {
        await subject.cleanup();
      }
    });
  };
  const ids = (neighbours: Iterable<Neighbour>) => [...neighbours].map(({ id }) => id).sort();

  check('knows every other member, and none twice', async (members) => {
    for (const { self, peers } of members.map((one) => ({ self: one.self, peers: one.peers() }))) {
      const others = members.map((one) => one.self.id).filter((id) => id !== self.id);
      assert.deepEqual(ids(peers), others.sort());
    }
    const [first, second] = members as [PeerDirectory, PeerDirectory];
    const seen = first.peers().find(({ id }) => id === second.self.id) as Neighbour;
    const { dataPort, fingerprint, zone } = second.self;
    assert.deepEqual(
      { dataPort: seen.dataPort, fingerprint: seen.fingerprint, zone: seen.zone },
      { dataPort, fingerprint, zone },
    );
    assert.equal(first.byFingerprint(fingerprint)?.id, second.self.id);
    assert.equal(first.byFingerprint('00'.repeat(32)), undefined);
  });

  check('finds who announced a chunk, whatever its digest algorithm, until it is withdrawn', async (members) => {
    const [first, second, third] = members as [PeerDirectory, PeerDirectory, PeerDirectory];
    first.announce([...DIGESTS, BLAKE3]);
    third.announce([DIGESTS[0] as Digest]);
    await eventually(async () => {
      assert.deepEqual(ids(await findAll(second, DIGESTS[0] as Digest)), ids([first.self, third.self]));
      for (const digest of [...DIGESTS.slice(1), BLAKE3]) {
        assert.deepEqual(ids(await findAll(second, digest)), [first.self.id]);
      }
    });
    assert.deepEqual(ids(await findAll(first, DIGESTS[1] as Digest)), [], 'never itself');
    assert.deepEqual(ids(await findAll(second, sha256('never announced'))), []);
    first.withdraw(DIGESTS);
    await eventually(async () => {
      assert.deepEqual(ids(await findAll(second, DIGESTS[0] as Digest)), [third.self.id]);
      assert.deepEqual(ids(await findAll(second, DIGESTS[1] as Digest)), []);
    });
    assert.deepEqual(ids(await findAll(second, BLAKE3)), [first.self.id]);
  });

  check('ends a search when its signal fires', async ([first]) => {
    const reason = new Error('enough');
    const search = first?.find(DIGESTS[0] as Digest, { signal: AbortSignal.abort(reason) });
    await assert.rejects(async () => {
      for await (const _ of search as AsyncIterable<Neighbour>);
    }, reason);
  });

  check('tells which rows of a blob a neighbour holds', async (members, held) => {
    const [first, second] = members as [PeerDirectory, PeerDirectory];
    const map = { rows: 19, bits: Uint8Array.of(0b1010_0101, 0xff, 0b101) };
    held[1]?.maps.set(BLOB, map);
    const seen = first.peers().find(({ id }) => id === second.self.id) as Neighbour;
    const answer = (await first.haveMap(seen, BLOB, { signal })) as HaveMap;
    assert.equal(answer.rows, 19);
    assert.deepEqual([...answer.bits], [...map.bits]);
    assert.equal(await first.haveMap(seen, sha256('unknown blob'), { signal }), undefined);
  });

  check('lets one of many claimers fetch a chunk, and points the others at it', async (members) => {
    const [first, second, third] = members as [PeerDirectory, PeerDirectory, PeerDirectory];
    const request = { blob: BLOB, region: 3, digests: DIGESTS };
    const granted = await first.claim(request, { signal });
    assert.deepEqual(
      granted.map(({ kind }) => kind),
      DIGESTS.map(() => 'granted'),
    );
    for (const other of [second, third]) {
      const answers = await other.claim(request, { signal });
      assert.equal(answers.length, DIGESTS.length);
      for (const answer of answers) {
        assert.ok(answer.kind === 'ask');
        assert.equal(answer.holders[0]?.id, first.self.id);
        assert.equal(answer.holders[0]?.fingerprint, first.self.fingerprint);
        assert.ok(answer.holders.every(({ id }) => id !== other.self.id));
      }
    }
    first.settle({ ...request, digests: DIGESTS.slice(0, 2) }, 'held');
    first.settle({ ...request, digests: DIGESTS.slice(2) }, 'failed');
    // Asked once only: a second claim would say that the holders named by the first did not have it.
    await sleep(2_000);
    const kinds = (await members[3]?.claim(request, { signal }))?.map(({ kind }) => kind);
    assert.deepEqual(kinds, ['ask', 'ask', 'granted', 'granted']);
  });

  check('gives exactly one lease when all claim at once', async (members) => {
    const request = { blob: BLOB, region: 0, digests: DIGESTS };
    const answers = await Promise.all(members.map((member) => member.claim(request, { signal })));
    for (const index of DIGESTS.keys()) {
      const granted = answers.filter((answer) => answer[index]?.kind === 'granted');
      assert.equal(granted.length, 1);
    }
  });

  check(
    'grants everything when there is nobody to ask',
    async ([only]) => {
      assert.deepEqual(only?.peers(), []);
      const request = { blob: BLOB, region: 0, digests: DIGESTS };
      const started = performance.now();
      const answers = (await only?.claim(request, { signal })) ?? [];
      assert.deepEqual(
        answers.map(({ kind }) => kind),
        DIGESTS.map(() => 'granted'),
      );
      assert.deepEqual(ids(await findAll(only as PeerDirectory, DIGESTS[0] as Digest)), []);
      assert.ok(performance.now() - started < 500, 'at once');
    },
    1,
  );

  check('neither shows nor finds a banned neighbour', async (members) => {
    const [first, second, third] = members as [PeerDirectory, PeerDirectory, PeerDirectory];
    second.announce([DIGESTS[0] as Digest]);
    await eventually(async () => {
      assert.deepEqual(ids(await findAll(first, DIGESTS[0] as Digest)), [second.self.id]);
    });
    first.ban(second.self.id, { reason: 'wrong bytes', forMs: 600_000 });
    assert.ok(first.peers().every(({ id }) => id !== second.self.id));
    assert.equal(first.byFingerprint(second.self.fingerprint), undefined);
    assert.deepEqual(ids(await findAll(first, DIGESTS[0] as Digest)), []);
    assert.deepEqual(ids(await findAll(third, DIGESTS[0] as Digest)), [second.self.id], 'others go on');
  });
}
