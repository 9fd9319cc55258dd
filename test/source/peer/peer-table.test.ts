import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { placeOfPeer } from '../../../src/source/peer/chunk-key.ts';
import { closestOf, prefixOf } from '../../../src/source/peer/closest.ts';
import { createPeerTable, FAILURES_MAX, type PeerTable } from '../../../src/source/peer/peer-table.ts';

function tableOf(init: { peersMax?: number } = {}) {
  const clock = { ms: 0, nowMs: () => clock.ms };
  const refused = new Set<string>();
  const self = { id: 'self', address: '10.0.0.1', dataPort: 1, fingerprint: '00'.repeat(32), zone: '' };
  const table = createPeerTable(
    { clock, isRefused: (id) => refused.has(id) },
    { self, multihash: Buffer.from('self'), instance: '00', ...init },
  );
  return { clock, refused, table };
}

function hear(table: PeerTable, id: string) {
  return table.hear({ id, multihash: Buffer.from(id), host: '10.0.0.2', port: 7946 });
}

function greet(table: PeerTable, id: string, instance = '01'): void {
  hear(table, id);
  const neighbour = { id, address: '10.0.0.2', dataPort: 1, fingerprint: id.padStart(64, '0'), zone: '' };
  table.greeted(id, { neighbour, instance, port: 7946 });
}

test('the closest by 32-bit prefix are the closest by all 256 bits', () => {
  const place = fc.uint8Array({ minLength: 32, maxLength: 32 });
  const near = fc
    .tuple(fc.constant(new Uint8Array(4)), fc.uint8Array({ minLength: 28, maxLength: 28 }))
    .map(([a, b]) => Buffer.concat([a, b]));
  fc.assert(
    fc.property(
      fc.array(fc.oneof(place, near), { maxLength: 40 }),
      fc.oneof(place, near),
      fc.integer({ min: 1, max: 6 }),
      (places, to, count) => {
        const members = places.map((one) => ({ place: one, prefix: prefixOf(one) }));
        const prefixes = Uint32Array.from(members, ({ prefix }) => prefix);
        const distance = (one: Uint8Array) =>
          Buffer.from(one.map((byte, at) => byte ^ (to[at] as number))).toString('hex');
        const expected = places.map(distance).sort().slice(0, count);
        assert.deepEqual(
          closestOf(members, prefixes, to, count).map((one) => distance(one.place)),
          expected,
        );
      },
    ),
    { numRuns: 1_000 },
  );
});

test('a peer counts from when it was heard of, not while it is away, and again when it is back', () => {
  const { clock, table } = tableOf();
  let changes = 0;
  table.onChange(() => {
    changes += 1;
  });
  const ids = () => table.members.map(({ id }) => id);
  hear(table, 'a');
  assert.deepEqual(ids(), ['self', 'a']);
  greet(table, 'a');
  table.disconnected('a');
  assert.deepEqual(ids(), ['self', 'a'], 'a connection may have been closed to have fewer');
  table.failed('a');
  assert.deepEqual(ids(), ['self']);
  assert.equal(table.get('a')?.retryAtMs, 1_000);
  clock.ms = 1_000;
  table.failed('a');
  assert.equal(table.get('a')?.retryAtMs, 3_000, 'waits double');
  greet(table, 'a', '02');
  assert.deepEqual(ids(), ['self', 'a']);
  assert.equal(changes, 6);
});

test('a peer that never comes back is forgotten', () => {
  const { table } = tableOf();
  greet(table, 'a');
  table.disconnected('a');
  for (let round = 0; round < FAILURES_MAX; round += 1) table.failed('a');
  assert.equal(table.get('a'), undefined);
});

test('a flood of names takes nobody’s place who was met, and is bounded', () => {
  const { table } = tableOf({ peersMax: 10 });
  for (let index = 0; index < 5; index += 1) greet(table, `met ${index}`);
  for (let index = 0; index < 1_000; index += 1) hear(table, `name ${index}`);
  assert.equal([...table.all()].length, 10);
  for (let index = 0; index < 5; index += 1) assert.ok(table.get(`met ${index}`));
  table.failed('name 3');
  assert.ok(hear(table, 'new'), 'a name that failed makes room');
  assert.equal(table.get('name 3'), undefined);
});

test('refused peers neither count nor have a fingerprint', () => {
  const { refused, table } = tableOf();
  greet(table, 'a');
  assert.equal(table.byFingerprint('a'.padStart(64, '0'))?.id, 'a');
  refused.add('a');
  table.refresh();
  assert.equal(table.byFingerprint('a'.padStart(64, '0')), undefined);
  assert.deepEqual(
    table.members.map(({ id }) => id),
    ['self'],
  );
  assert.deepEqual(
    table.closest(placeOfPeer(randomBytes(4)), 3).map(({ id }) => id),
    ['self'],
  );
});
