import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { createProviderIndex } from '../../../src/source/peer/provider-index.ts';

const KEY = randomBytes(32);

function keysOf(count: number): Uint8Array {
  return randomBytes(32 * count);
}

test('finds who announced a key until the record ends, and again when it was refreshed', () => {
  const index = createProviderIndex({ lifeMs: 10_000 });
  assert.equal(index.add('a', KEY, 0), 1);
  assert.equal(index.add('b', KEY, 5_000), 1);
  assert.deepEqual(index.lookup(KEY, 5_000).sort(), ['a', 'b']);
  assert.deepEqual(index.lookup(KEY, 10_000), ['b']);
  index.add('a', KEY, 10_000);
  assert.deepEqual(index.lookup(KEY, 16_000), ['a']);
  assert.deepEqual(index.lookup(randomBytes(32), 0), []);
});

test('sweeping drops what ended and nothing else', () => {
  const index = createProviderIndex({ lifeMs: 10_000 });
  const old = keysOf(2_000);
  const young = keysOf(1_000);
  index.add('a', old, 0);
  index.add('b', young, 8_000);
  assert.equal(index.records, 3_000);
  for (let round = 0; round < 256; round += 1) index.sweep(12_000);
  assert.equal(index.records, 1_000);
  for (let at = 0; at < young.length; at += 32) {
    assert.deepEqual(index.lookup(young.subarray(at, at + 32), 12_000), ['b']);
  }
  const bytes = index.bytes;
  index.add('c', old, 12_000);
  assert.equal(index.bytes, bytes, 'the room is used again');
});

test('a key keeps 20 providers, a peer 100,000 records, the index what it was made for', () => {
  const index = createProviderIndex({ records: 150_000 });
  for (let peer = 0; peer < 50; peer += 1) index.add(`peer ${peer}`, KEY, 0);
  assert.equal(index.lookup(KEY, 0).length, 20);
  const flood = keysOf(120_000);
  assert.equal(index.add('flood', flood, 0), 100_000);
  assert.equal(index.add('flood', flood.subarray(0, 32 * 100), 0), 100, 'refreshing is not adding');
  assert.equal(index.add('self', keysOf(10_000), 0, { isOwn: true }), 10_000);
  assert.equal(index.add('other', keysOf(60_000), 0), 40_000 - 20);
  assert.equal(index.records, 150_000);
});

test('ended records make room for new providers of a full key', () => {
  const index = createProviderIndex({ lifeMs: 1_000, providersPerKey: 2 });
  index.add('a', KEY, 0);
  index.add('b', KEY, 0);
  assert.equal(index.add('c', KEY, 500), 0);
  assert.equal(index.add('c', KEY, 1_500), 1);
  assert.deepEqual(index.lookup(KEY, 1_500), ['c']);
  assert.equal(index.records, 1);
});

test('behaves like a plain map of sets under any sequence', () => {
  const key = fc.integer({ min: 0, max: 40 });
  const peer = fc.integer({ min: 0, max: 6 }).map(String);
  const step = fc.record({ key, peer, action: fc.constantFrom('add', 'add', 'remove', 'tick', 'sweep') });
  const keys = Array.from({ length: 41 }, () => randomBytes(32));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const index = createProviderIndex({ lifeMs: 5_000, providersPerKey: 3, recordsPerPeer: 30, records: 100 });
      const model = new Map<number, Map<string, number>>();
      let nowMs = 0;
      for (const { key: at, peer: id, action } of steps) {
        const bytes = keys[at] as Uint8Array;
        if (action === 'tick') nowMs += 1_000;
        else if (action === 'sweep') for (let round = 0; round < 256; round += 1) index.sweep(nowMs);
        else if (action === 'remove') {
          index.remove(id, bytes);
          model.get(at)?.delete(id);
        } else if (index.add(id, bytes, nowMs) === 1) {
          const entry = model.get(at) ?? new Map<string, number>();
          model.set(at, entry.set(id, nowMs + 5_000));
        }
        const alive = [...(model.get(at) ?? [])].filter(([, end]) => end > nowMs).map(([one]) => one);
        assert.deepEqual(index.lookup(bytes, nowMs).sort(), alive.sort());
        assert.ok(alive.length <= 3 && index.records <= 100);
      }
    }),
    { numRuns: 300 },
  );
});

test('a million records take at most 120 bytes each', { timeout: 120_000 }, () => {
  const index = createProviderIndex({ recordsPerPeer: 1_000_000 });
  for (let round = 0; round < 100; round += 1) index.add(`peer ${round % 50}`, keysOf(10_000), 0);
  assert.equal(index.records, 1_000_000);
  assert.ok(index.bytes <= 120 * 1_000_000, `${index.bytes / 1_000_000} bytes a record`);
});
