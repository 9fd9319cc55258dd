import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClaimPeers } from '../../../src/core/policy/claim-peers.ts';

test('a slot is given to another only when its node is forgotten and no chunk remembers it', () => {
  const peers = new ClaimPeers<string>();
  const a = peers.join('a');
  peers.use(a);
  peers.forget('a');
  assert.equal(peers.join('b') === a, false);
  assert.equal(peers.find('a'), a);
  peers.release(a);
  assert.equal(peers.find('a'), undefined);
  assert.equal(peers.join('c'), a);
  assert.equal(peers.idOf(a), 'c');
});

test('a node that is back has its slot, another life, and neither load nor leases', () => {
  const peers = new ClaimPeers<string>();
  const a = peers.join('a');
  const life = peers.life[a];
  peers.use(a);
  peers.load[a] = 3;
  peers.leases[a] = 2;
  peers.forget('a');
  assert.equal(peers.join('a'), a);
  assert.notEqual(peers.life[a], life);
  assert.deepEqual([peers.load[a], peers.leases[a]], [0, 0]);
  peers.release(a);
  assert.equal(peers.find('a'), a, 'it is there, whatever chunks remember');
});

test('a thousand nodes keep their numbers', () => {
  const peers = new ClaimPeers<number>();
  const slots = Array.from({ length: 1_000 }, (_, id) => {
    const slot = peers.join(id);
    peers.load[slot] = id;
    return slot;
  });
  assert.deepEqual(
    slots.map((slot) => [peers.idOf(slot), peers.load[slot]]),
    slots.map((_, id) => [id, id]),
  );
});
