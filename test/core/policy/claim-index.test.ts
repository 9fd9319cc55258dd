import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClaimIndex } from '../../../src/core/policy/claim-index.ts';

interface Member {
  readonly peer: { readonly id: string; readonly gone: boolean };
  state: 'held' | 'coming';
  load: number;
  readonly parent: Member | undefined;
}

const FANOUT = 4;

function member(id: number): Member {
  return { peer: { id: `peer ${id}`, gone: id % 7 === 3 }, state: 'coming', load: 0, parent: undefined };
}

/** What the index answers, found by looking at everybody. */
function byLooking(members: readonly Member[], count: number, own: Member | undefined): Member[] | undefined {
  const open = members.filter(
    (each) => each.state === 'held' && each.load < FANOUT && !each.peer.gone && each !== own && each !== own?.parent,
  );
  const sorted = open.toSorted((a, b) => a.load - b.load);
  return sorted.length < count ? undefined : sorted.slice(0, count);
}

test('the index of a crowd names the holders that looking at everybody would', () => {
  const change = fc.record({ at: fc.nat(299), load: fc.nat(6), held: fc.boolean() });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.array(change, { maxLength: 200 }), (size, changes) => {
      const members = Array.from({ length: Math.ceil(size / 2) }, (_, id) => member(id));
      const index = new ClaimIndex(members, FANOUT);
      while (members.length < size) {
        members.push(member(members.length));
        index.added(members.length - 1);
      }
      for (const { at, load, held } of changes) {
        const each = members[at % size] as Member;
        each.load = load;
        each.state = held ? 'held' : 'coming';
        index.changed(at % size);
      }
      for (const own of [undefined, members[0], members[size - 1]]) {
        assert.deepEqual(index.holders(3, own), byLooking(members, 3, own));
      }
      for (const [at, { peer }] of members.entries()) assert.equal(index.placeOf(peer.id), at);
      assert.equal(index.placeOf('nobody'), -1);
    }),
  );
});
