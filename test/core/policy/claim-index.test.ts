import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ClaimIndex } from '../../../src/core/policy/claim-index.ts';

interface Member {
  readonly peer: { readonly id: string; readonly gone: boolean };
  state: 'held' | 'coming' | 'fetching' | 'lost';
  load: number;
  readonly parent: Member | undefined;
}

const FANOUT = 4;

function member(id: number): Member {
  return { peer: { id: `peer ${id}`, gone: id % 7 === 3 }, state: 'coming', load: 0, parent: undefined };
}

interface Asked {
  readonly own: Member | undefined;
  readonly root: Member | undefined;
  readonly before: number;
}

/** What the index answers, found by looking at everybody. */
function byLooking(members: readonly Member[], count: number, { own, root, before }: Asked): Member[] | undefined {
  const willing = members.filter((each) => !each.peer.gone && each !== own && each.load < FANOUT);
  const holding = willing.filter((each) => each.state === 'held' && each !== own?.parent);
  const getting = willing.filter(
    (each) => each === root || (each.state === 'coming' && members.indexOf(each) < before),
  );
  const best = [...holding.toSorted((a, b) => a.load - b.load), ...getting].slice(0, count);
  const isAlive = holding.length > 0 || (root !== undefined && root !== own && !root.peer.gone);
  return best.length < count || !isAlive ? undefined : best;
}

test('the index of a crowd names the holders that looking at everybody would', () => {
  const state = fc.constantFrom<Member['state']>('held', 'coming', 'lost');
  const change = fc.record({ at: fc.nat(299), load: fc.nat(6), state });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 300 }),
      fc.array(change, { maxLength: 200 }),
      fc.nat(),
      (size, changes, rootAt) => {
        const members = Array.from({ length: Math.ceil(size / 2) }, (_, id) => member(id));
        const index = new ClaimIndex(members, FANOUT);
        while (members.length < size) {
          members.push(member(members.length));
          index.added(members.length - 1);
        }
        for (const { at, load, state } of changes) {
          const each = members[at % size] as Member;
          each.load = load;
          each.state = state;
          index.changed(at % size);
        }
        const fetching = members[rootAt % size] as Member;
        fetching.state = 'fetching';
        index.changed(rootAt % size);
        for (const own of [undefined, members[0], members[size - 1]]) {
          for (const before of [0, size >> 1, size]) {
            const asked = { own, root: fetching, before };
            assert.deepEqual(index.holders(3, asked), byLooking(members, 3, asked));
          }
        }
        for (const [at, { peer }] of members.entries()) assert.equal(index.placeOf(peer.id), at);
        assert.equal(index.placeOf('nobody'), -1);
      },
    ),
  );
});
