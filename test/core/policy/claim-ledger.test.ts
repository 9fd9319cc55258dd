import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createClaimLedger, type LedgerAnswer } from '../../../src/core/policy/claim-ledger.ts';
import { CLAIM_LIMITS, claimShare } from '../../../src/core/policy/claim-limits.ts';

function ledgerAt(init: Parameters<typeof createClaimLedger>[1] = {}) {
  const clock = { ms: 0, nowMs: () => clock.ms };
  return { clock, ledger: createClaimLedger({ clock }, init) };
}

function holders(answer: LedgerAnswer): readonly string[] {
  assert.equal(answer.kind, 'ask');
  return answer.kind === 'ask' ? answer.holders : [];
}

test('the first claimer is granted, and has the lease for its time', () => {
  const { clock, ledger } = ledgerAt();
  assert.deepEqual(ledger.claim('a', 'x'), { kind: 'granted', leaseMs: 10_000 });
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['a']);
  clock.ms = 9_999;
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['a']);
  clock.ms = 10_000;
  assert.equal(ledger.claim('b', 'x').kind, 'granted', 'the claimer died: it cost one lease');
  assert.deepEqual(holders(ledger.claim('a', 'x')), ['b']);
});

test('a claimer that claims again keeps its lease, up to a minute', () => {
  const { clock, ledger } = ledgerAt();
  ledger.claim('a', 'x');
  for (clock.ms = 5_000; clock.ms <= 50_000; clock.ms += 5_000) {
    assert.deepEqual(ledger.claim('a', 'x'), { kind: 'granted', leaseMs: 10_000 });
  }
  clock.ms = 58_000;
  assert.deepEqual(ledger.claim('a', 'x'), { kind: 'granted', leaseMs: 2_000 });
  clock.ms = 60_000;
  assert.equal(ledger.claim('b', 'x').kind, 'granted');
});

test('a tree of four forms: each holder-to-be is asked first by four, in the order they came', () => {
  const { ledger } = ledgerAt();
  ledger.claim('0', 'x');
  const parents = Array.from({ length: 21 }, (_, index) => holders(ledger.claim(String(index + 1), 'x'))[0]);
  const expected = Array.from({ length: 21 }, (_, index) => String(Math.floor(index / 4)));
  assert.deepEqual(parents, expected);
});

test('answers name up to three different holders, never the claimer', () => {
  const { ledger } = ledgerAt();
  for (let index = 0; index < 12; index += 1) ledger.claim(String(index), 'x');
  assert.deepEqual(holders(ledger.claim('12', 'x')), ['2', '3', '4']);
  const again = holders(ledger.claim('7', 'x'));
  assert.equal(new Set(again).size, 3);
  assert.ok(again.every((id) => Number(id) < 7));
});

test('later claimers ask those who have the chunk, the least loaded first', () => {
  const { ledger } = ledgerAt();
  ledger.claim('a', 'x');
  ledger.settle('a', 'x', 'held');
  const firsts = ['b', 'c', 'd', 'e'].map((id) => holders(ledger.claim(id, 'x'))[0]);
  assert.deepEqual(firsts, ['a', 'a', 'a', 'a']);
  assert.equal(holders(ledger.claim('f', 'x'))[0], 'b', 'a has four; b is about to have it');
  ledger.settle('b', 'x', 'held');
  assert.equal(holders(ledger.claim('g', 'x'))[0], 'b', 'f counts against b once it asks it');
  ledger.settle('c', 'x', 'held');
  const next = ['h', 'i', 'j'].map((id) => holders(ledger.claim(id, 'x'))[0]);
  assert.deepEqual(next, ['c', 'c', 'a'], 'loads: a 2, b 2, c 0');
});

test('who is to send one chunk to many is not the one to ask for the next', () => {
  const { ledger } = ledgerAt({ peerLoad: 4 });
  const chunks = ['w', 'x', 'y', 'z'];
  const parents = ['root', 'a', 'b', 'c', 'd', 'e'].map((id) => chunks.map((chunk) => ledger.claim(id, chunk)));
  assert.ok(parents[0]?.every(({ kind }) => kind === 'granted'));
  const firsts = parents.slice(1).map((answers) => answers.map((answer) => holders(answer)[0]));
  assert.deepEqual(firsts[0], ['root', 'root', 'root', 'root']);
  assert.deepEqual(firsts[1], ['a', 'a', 'a', 'a'], 'the root has four to send');
  assert.deepEqual(firsts[2], ['b', 'b', 'b', 'b']);
  for (const chunk of chunks) ledger.settle('a', chunk, 'held');
  assert.equal(holders(ledger.claim('f', 'w'))[0], 'root', 'it has nothing to send now, and a has four');
});

test('of holders with nothing to send another one is named first each time', () => {
  const { ledger } = ledgerAt();
  ledger.claim('a', 'x');
  for (const id of ['b', 'c', 'd']) ledger.claim(id, 'x');
  for (const id of ['a', 'b', 'c', 'd']) ledger.settle(id, 'x', 'held');
  const named = ['e', 'f', 'g', 'h'].map((id) => {
    const first = holders(ledger.claim(id, 'x'))[0];
    ledger.settle(id, 'x', 'failed');
    return first;
  });
  assert.ok(new Set(named).size > 2, named.join(' '));
});

test('for one claim only some of many claimers are looked at, and others for the next', () => {
  const { ledger } = ledgerAt({ looks: 4, holders: 1, peerLoad: 3 });
  const all = Array.from({ length: 16 }, (_, index) => `holder ${index}`);
  for (const id of all) ledger.claim(id, 'x');
  for (const id of all) ledger.settle(id, 'x', 'held');
  const first = holders(ledger.claim('first', 'x'))[0] as string;
  ledger.settle('first', 'x', 'failed');
  // The search goes on behind that one; only one far from there has nothing to send.
  const idle = all[(all.indexOf(first) + 9) % all.length] as string;
  for (const id of all.filter((each) => each !== idle)) {
    ledger.claim(id, id);
    ledger.claim(`reader of ${id}`, id);
  }
  const named = Array.from({ length: 16 }, (_, index) => holders(ledger.claim(`claimer ${index}`, 'x'))[0]);
  assert.notEqual(named[0], idle);
  assert.ok(named.includes(idle), named.join(' '));
  assert.ok(new Set(named).size >= 8, named.join(' '));
});

test('claimers that are not remembered are pointed at all of those that are, in turn', () => {
  const { ledger } = ledgerAt({ membersPerChunk: 8 });
  for (let index = 0; index < 8; index += 1) ledger.claim(`member ${index}`, 'x');
  const asked = new Map<string, number>();
  for (let index = 0; index < 80; index += 1) {
    const first = holders(ledger.claim(`guest ${index}`, 'x'))[0] as string;
    asked.set(first, (asked.get(first) ?? 0) + 1);
  }
  assert.ok(asked.size >= 6, JSON.stringify([...asked]));
  assert.ok(Math.max(...asked.values()) <= 20, JSON.stringify([...asked]));
});

test('what a node was to send of a chunk that is forgotten does not count any more', () => {
  const { clock, ledger } = ledgerAt({ peerLoad: 2 });
  for (const id of ['a', 'c', 'd']) ledger.claim(id, 'x');
  clock.ms = CLAIM_LIMITS.retainMs;
  for (const id of ['a', 'b']) {
    ledger.claim(id, 'y');
    ledger.settle(id, 'y', 'held');
  }
  assert.deepEqual(ledger.size, { chunks: 1, members: 2 });
  const named = ['p', 'q'].map((id) => holders(ledger.claim(id, 'y'))[0]);
  assert.deepEqual(named.toSorted(), ['a', 'b']);
});

test('the chunks of one claim together count for no more than a region of large ones', () => {
  assert.deepEqual([1, 2, 4, 8, 1_024].map(claimShare), [1, 1, 1, 0.5, 1 / 256]);
  assert.equal(claimShare(3), 1);
  const { ledger } = ledgerAt();
  const small = Array.from({ length: 256 }, (_, index) => `small ${index}`);
  for (const chunk of small) ledger.claim('root', chunk);
  for (const chunk of small) ledger.settle('root', chunk, 'held');
  for (const chunk of small) assert.equal(holders(ledger.claim('a', chunk, claimShare(small.length)))[0], 'root');
});

test('who gives up lets the next claimer fetch', () => {
  const { ledger } = ledgerAt();
  ledger.claim('a', 'x');
  ledger.claim('b', 'x');
  ledger.settle('a', 'x', 'failed');
  assert.equal(ledger.claim('c', 'x').kind, 'granted');
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['c']);
  ledger.settle('stranger', 'x', 'failed');
  ledger.settle('a', 'y', 'held');
  assert.deepEqual(holders(ledger.claim('d', 'x')), ['c', 'b']);
});

test('a holder that did not deliver is not named again to who complains, and at last the chunk is granted', () => {
  const { ledger } = ledgerAt();
  ledger.claim('liar', 'x');
  ledger.settle('liar', 'x', 'held');
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['liar']);
  assert.equal(ledger.claim('b', 'x').kind, 'granted');
  assert.deepEqual(holders(ledger.claim('c', 'x')), ['liar', 'b']);
});

test('a peer that is gone ends its leases, and is named to nobody', () => {
  const { ledger } = ledgerAt();
  ledger.claim('a', 'x');
  ledger.claim('b', 'x');
  ledger.forget('a');
  assert.equal(ledger.claim('c', 'x').kind, 'granted');
  ledger.settle('c', 'x', 'held');
  ledger.forget('c');
  assert.equal(ledger.claim('d', 'x').kind, 'granted');
});

test('memory is bounded: by chunks, by claimers of one chunk, by leases of one peer', () => {
  const { ledger } = ledgerAt({ chunks: 100, membersPerChunk: 8, members: 500, leasesPerPeer: 50 });
  for (let index = 0; index < 1_000; index += 1) {
    assert.equal(ledger.claim('greedy', `chunk ${index}`).kind, 'granted');
    assert.ok(ledger.size.chunks <= 50, 'what passes its leases is granted and not remembered');
  }
  for (let index = 0; index < 1_000; index += 1) ledger.claim(`peer ${index}`, `other ${index}`);
  assert.equal(ledger.size.chunks, 100);
  for (let index = 0; index < 100; index += 1) ledger.claim(`crowd ${index}`, 'x');
  assert.ok(ledger.size.members <= 107);
  const answer = holders(ledger.claim('one more', 'x'));
  assert.equal(answer.length, 3, 'those who are not remembered are still told whom to ask');
});

test('what nobody touched for two minutes is forgotten', () => {
  const { clock, ledger } = ledgerAt();
  for (let index = 0; index < 100; index += 1) ledger.claim('a', `chunk ${index}`);
  clock.ms = CLAIM_LIMITS.retainMs;
  for (let index = 0; index < 50; index += 1) ledger.claim('b', 'x');
  assert.deepEqual(ledger.size, { chunks: 1, members: 1 });
});

test('who comes back after it was forgotten does not wait for those who wait for it', () => {
  const { ledger } = ledgerAt();
  for (const peer of ['a', 'b', 'c']) ledger.claim(peer, 'x');
  ledger.forget('b');
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['a']);
});

interface Waits {
  /** Peer → whom it was last told to ask, first. */
  readonly on: Map<string, readonly string[]>;
}

function hasCircle({ on }: Waits): boolean {
  for (const start of on.keys()) {
    let reached = new Set<string>([start]);
    for (let round = 0; round <= on.size; round += 1) {
      reached = new Set([...reached].flatMap((id) => on.get(id) ?? []));
      if (reached.has(start)) return true;
    }
  }
  return false;
}

test('nobody ever waits in a circle, whatever claims, settlements, losses and delays come', () => {
  const step = fc.record({
    peer: fc.integer({ min: 0, max: 9 }).map(String),
    action: fc.constantFrom('claim', 'claim', 'claim', 'held', 'failed', 'forget', 'wait'),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { clock, ledger } = ledgerAt({ leaseMs: 100, leaseLongestMs: 300 });
      // A claim replaces the waits before it; who was granted, settled or left waits for nobody.
      const waits: Waits = { on: new Map() };
      let granted = 0;
      for (const { peer, action } of steps) {
        if (action === 'wait') clock.ms += 60;
        else if (action === 'forget') ledger.forget(peer);
        else if (action !== 'claim') ledger.settle(peer, 'x', action);
        waits.on.delete(peer);
        if (action !== 'claim') continue;
        const answer = ledger.claim(peer, 'x');
        if (answer.kind === 'granted') granted += 1;
        else {
          assert.ok(answer.holders.length > 0 && answer.holders.length <= 3);
          assert.ok(!answer.holders.includes(peer));
          waits.on.set(peer, answer.holders);
        }
        assert.ok(!hasCircle(waits), JSON.stringify([...waits.on]));
      }
      assert.ok(granted > 0 || !steps.some(({ action }) => action === 'claim'));
    }),
    { numRuns: 5_000 },
  );
});

test('each of many claimers is found again by its name', () => {
  const { ledger } = ledgerAt();
  const names = Array.from({ length: 1_000 }, (_, at) => `node ${at}`);
  for (const name of names) ledger.claim(name, 'x');
  for (const name of names) ledger.settle(name, 'x', 'held');
  for (const name of names) {
    assert.ok(!holders(ledger.claim(name, 'x')).includes(name), name);
    ledger.settle(name, 'x', 'held');
  }
  assert.deepEqual(ledger.size, { chunks: 1, members: 1_000 });
});

test('who comes back after it was forgotten begins without load, and its former claimers count no more', () => {
  const { ledger } = ledgerAt({ peerLoad: 1, holders: 1 });
  for (const name of ['a', 'b']) {
    ledger.claim(name, 'x');
    ledger.settle(name, 'x', 'held');
  }
  assert.deepEqual([holders(ledger.claim('c', 'x')), holders(ledger.claim('d', 'x'))], [['b'], ['a']]);
  ledger.forget('b');
  assert.deepEqual(holders(ledger.claim('b', 'x')), ['a'], 'nobody else is there');
  ledger.settle('b', 'x', 'held');
  assert.deepEqual(holders(ledger.claim('e', 'x')), ['b'], 'its load went with its former life');
  ledger.settle('c', 'x', 'held');
  assert.deepEqual(holders(ledger.claim('f', 'x')), ['c'], 'what c says now does not make room at b');
});
