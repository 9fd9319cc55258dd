import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../../src/core/digest.ts';
import { chunkKey, placeOfKey, placeOfPeer } from '../../../src/source/peer/chunk-key.ts';
import { prefixOf } from '../../../src/source/peer/closest.ts';
import { isSamePlacement, newHolders, type PlacedMember, placementOf } from '../../../src/source/peer/placement.ts';

function member(id: string, instance = 'first'): PlacedMember {
  const place = placeOfPeer(Buffer.from(id));
  return { id, instance, place, prefix: prefixOf(place) };
}

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
const PLACES = Array.from({ length: 500 }, (_, index) => placeOfKey(chunkKey(sha256(`chunk ${index}`))));

test('only the newcomer gets records when one joins, about its share of all', () => {
  const before = placementOf(NAMES.map((name) => member(name)));
  const now = placementOf([...NAMES, 'new'].map((name) => member(name)));
  const moved = PLACES.map((place) => newHolders(now, before, place, 3));
  assert.ok(moved.every((targets) => targets.length <= 1 && targets.every(({ id }) => id === 'new')));
  const share = moved.filter((targets) => targets.length === 1).length / PLACES.length;
  assert.ok(share > 0.15 && share < 0.6, `${share}, 3 of 9 expected`);
});

test('when one leaves, what it kept goes to the next closest and nothing else moves', () => {
  const before = placementOf(NAMES.map((name) => member(name)));
  const now = placementOf(NAMES.slice(1).map((name) => member(name)));
  for (const place of PLACES) {
    const had = before.closest(place, 3).map(({ id }) => id);
    const targets = newHolders(now, before, place, 3).map(({ id }) => id);
    assert.equal(targets.length, had.includes('a') ? 1 : 0);
    assert.ok(targets.every((id) => !had.includes(id)));
  }
});

test('a member that restarted gets its records again, one that was not greeted yet does not', () => {
  const before = placementOf(NAMES.map((name) => member(name)));
  const withA = (instance: string) =>
    placementOf([member('a', instance), ...NAMES.slice(1).map((name) => member(name))]);
  assert.ok(isSamePlacement(before, withA('')));
  assert.ok(!isSamePlacement(before, withA('second')));
  for (const place of PLACES) {
    assert.deepEqual(newHolders(withA(''), before, place, 3), []);
    const isHolder = before.closest(place, 3).some(({ id }) => id === 'a');
    assert.deepEqual(
      newHolders(withA('second'), before, place, 3).map(({ id }) => id),
      isHolder ? ['a'] : [],
    );
  }
});
